import numpy as np


def quantize_groups(w: np.ndarray, group: int, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (int8), scales (float64, one for each group of a row) and decoded values (float64) of `w`."""
    top = 2 ** (bits - 1) - 1
    rows, columns = w.shape
    groups = -(-columns // group)
    padded = np.zeros((rows, groups * group))
    padded[:, :columns] = np.abs(w)
    peak = padded.reshape(rows, groups, group).max(axis=2)
    scales = np.where(peak > 0, peak / top, 1.0)
    step = np.repeat(scales, group, axis=1)[:, :columns]
    codes = np.rint(w / step).astype(np.int8)
    return codes, scales, codes * step
