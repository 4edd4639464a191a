import numpy as np


def quantize_groups(w, group, bits):
    top = 2 ** (bits - 1) - 1
    rows, columns = w.shape
    blocks = w.reshape(rows, -1, group)
    peak = np.abs(blocks).max(axis=2)
    scales = np.where(peak > 0, peak / top, 1.0)
    codes = np.rint(blocks / scales[:, :, None]).astype(np.int8)
    decoded = codes * scales[:, :, None]
    return codes.reshape(rows, columns), scales, decoded.reshape(rows, columns)
