import numpy as np


def rotary(x: np.ndarray, positions: np.ndarray, theta: float) -> np.ndarray:
    """Turn each pair (i, i + dim / 2) of features by its frequency times the position."""
    raise NotImplementedError
