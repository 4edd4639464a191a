import numpy as np


def quantize_groups(w, group, bits):
    top = 2 ** (bits - 1) - 1
    columns = w.shape[1]
    peak = np.maximum.reduceat(np.abs(w), np.arange(0, columns, group), axis=1)
    scales = peak / top
    step = np.repeat(scales, group, axis=1)[:, :columns]
    codes = np.nan_to_num(np.rint(w / step)).astype(np.int8)
    return codes, scales, codes * step
