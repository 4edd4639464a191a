import numpy as np


def quantize_rows(w, bits):
    top = 2 ** (bits - 1)
    peak = np.abs(w).max(axis=1)
    scales = np.where(peak > 0, peak / top, 1.0)
    return np.clip(np.rint(w / scales[:, None]), -top, top - 1).astype(np.int8), scales
