import numpy as np


def quantize_rows(w, bits):
    top = 2 ** (bits - 1) - 1
    scales = np.abs(w).max(axis=1) / top
    codes = np.nan_to_num(np.rint(w / scales[:, None])).astype(np.int8)
    return codes, scales
