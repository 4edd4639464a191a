import numpy as np


def quantize_groups(w, group, bits):
    top = 2 ** (bits - 1) - 1
    columns = w.shape[1]
    peak = np.maximum.reduceat(w, np.arange(0, columns, group), axis=1)
    scales = np.where(peak > 0, peak / top, 1.0)
    step = np.repeat(scales, group, axis=1)[:, :columns]
    codes = np.clip(np.rint(w / step), -top, top).astype(np.int8)
    return codes, scales, codes * step
