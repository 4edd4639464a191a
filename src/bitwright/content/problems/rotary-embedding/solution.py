import numpy as np


def rotary(x: np.ndarray, positions: np.ndarray, theta: float) -> np.ndarray:
    """Turn each pair (i, i + dim / 2) of features by its frequency times the position."""
    half = x.shape[-1] // 2
    frequencies = theta ** (-np.arange(half) / half)
    angles = positions[:, None] * frequencies
    cosine, sine = np.cos(angles), np.sin(angles)
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
