import numpy as np


def quantize_groups(w, group, bits):
    top = 2 ** (bits - 1) - 1
    rows, columns = w.shape
    groups = -(-columns // group)
    padded = np.zeros((rows, groups * group))
    padded[:, :columns] = np.abs(w)
    peak = padded.reshape(rows, groups, group).max(axis=2)
    scales = np.where(peak > 0, peak / top, 1.0)
    step = np.tile(scales, group)[:, :columns]
    codes = np.clip(np.rint(w / step), -top, top).astype(np.int8)
    return codes, scales, codes * step
