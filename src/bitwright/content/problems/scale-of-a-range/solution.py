import numpy as np


def scale_and_zero(x: np.ndarray) -> tuple[float, int]:
    """Scale and zero point of the unsigned byte codes that cover `x`, float64 (n,), and zero."""
    low = min(0.0, float(x.min()))
    high = max(0.0, float(x.max()))
    if low == high:
        return 1.0, 0
    scale = (high - low) / 255
    zero = int(np.rint(-low / scale))
    return scale, zero
