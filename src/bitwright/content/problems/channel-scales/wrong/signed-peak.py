import numpy as np


def quantize_rows(w, bits):
    top = 2 ** (bits - 1) - 1
    peak = w.max(axis=1)
    scales = np.where(peak > 0, peak / top, 1.0)
    return np.clip(np.rint(w / scales[:, None]), -top, top).astype(np.int8), scales
