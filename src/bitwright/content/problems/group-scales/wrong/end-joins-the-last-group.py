import numpy as np


def quantize_groups(w, group, bits):
    top = 2 ** (bits - 1) - 1
    columns = w.shape[1]
    groups = max(1, columns // group)
    starts = np.arange(groups) * group
    peak = np.maximum.reduceat(np.abs(w), starts, axis=1)
    scales = np.where(peak > 0, peak / top, 1.0)
    step = scales[:, np.minimum(np.arange(columns) // group, groups - 1)]
    codes = np.rint(w / step).astype(np.int8)
    return codes, scales, codes * step
