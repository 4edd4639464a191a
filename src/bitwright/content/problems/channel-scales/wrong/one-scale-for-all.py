import numpy as np


def quantize_rows(w, bits):
    top = 2 ** (bits - 1) - 1
    peak = np.abs(w).max()
    scale = peak / top if peak > 0 else 1.0
    return np.rint(w / scale).astype(np.int8), np.full(len(w), scale)
