import numpy as np


def scale_and_zero(x: np.ndarray) -> tuple[float, int]:
    """Scale and zero point of the unsigned byte codes that cover `x`, float64 (n,), and zero."""
    raise NotImplementedError
