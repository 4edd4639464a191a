import numpy as np


def quantize(x: np.ndarray, scale: float, zero: int, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes (int32) of `x`, float64 (n,), and the float64 values they decode to."""
    raise NotImplementedError
