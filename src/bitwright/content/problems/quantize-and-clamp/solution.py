import numpy as np


def quantize(x: np.ndarray, scale: float, zero: int, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes (int32) of `x`, float64 (n,), and the float64 values they decode to."""
    steps = np.rint(x / scale)
    codes = np.clip(steps + zero, low, high).astype(np.int32)
    decoded = scale * (codes - zero)
    return codes, decoded
