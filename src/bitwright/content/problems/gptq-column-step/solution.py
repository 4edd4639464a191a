import numpy as np


def quantize_column(
    w: np.ndarray, u: np.ndarray, column: int, scale: np.ndarray, bits: int
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (int8) of one column of `w`, and the weights (float64) after its error went to later columns."""
    half = 2 ** (bits - 1)
    codes = np.clip(np.rint(w[:, column] / scale), -half, half - 1)
    decoded = scale * codes
    error = (w[:, column] - decoded) / u[column, column]
    new = w.copy()
    new[:, column] = decoded
    new[:, column + 1 :] -= np.outer(error, u[column, column + 1 :])
    return codes.astype(np.int8), new
