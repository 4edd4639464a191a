import numpy as np


def causal_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Attention of each token to itself and the tokens before it, padding left out."""
    tokens, dim = q.shape
    visible = np.tri(tokens, dtype=bool) & keep
    scores = np.where(visible, q @ k.T / np.sqrt(dim), -np.inf)
    peak = scores.max(axis=1, keepdims=True)
    powers = np.exp(scores - np.where(np.isfinite(peak), peak, 0.0))
    total = powers.sum(axis=1, keepdims=True)
    weights = powers / np.where(total > 0, total, 1.0)
    return weights @ v
