import numpy as np


def quantize_column(
    w: np.ndarray, u: np.ndarray, column: int, scale: np.ndarray, bits: int
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (int8) of one column of `w`, and the weights (float64) after its error went to later columns."""
    raise NotImplementedError
