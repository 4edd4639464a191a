import numpy as np


def quantize_rows(w: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric codes (int8) of `w`, float64 (rows, columns), and one scale (float64) for each row."""
    top = 2 ** (bits - 1) - 1
    peak = np.abs(w).max(axis=1)
    scales = np.where(peak > 0, peak / top, 1.0)
    codes = np.rint(w / scales[:, None]).astype(np.int8)
    return codes, scales
