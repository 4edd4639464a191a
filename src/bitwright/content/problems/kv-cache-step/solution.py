import numpy as np


def cache_step(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, keys: np.ndarray, values: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Append new tokens to the cache of each sequence; their attention, and the cache afterwards."""
    batch, new, dim = q.shape
    positions = lengths[:, None] + np.arange(new)
    sequences = np.arange(batch)[:, None]
    keys[sequences, positions] = k
    values[sequences, positions] = v
    used = positions.max() + 1
    visible = np.arange(used) <= positions[:, :, None]
    scores = q @ keys[:, :used].swapaxes(1, 2) / np.sqrt(dim)
    scores = np.where(visible, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights @ values[:, :used], keys, values
