import numpy as np


def quantize_groups(w, group, bits):
    top = 2 ** (bits - 1) - 1
    flat = w.ravel()
    groups = -(-len(flat) // group)
    padded = np.zeros(groups * group)
    padded[: len(flat)] = flat
    blocks = padded.reshape(groups, group)
    peak = np.abs(blocks).max(axis=1, keepdims=True)
    scales = np.where(peak > 0, peak / top, 1.0)
    codes = np.rint(blocks / scales).astype(np.int8)
    decoded = (codes * scales).ravel()[: len(flat)].reshape(w.shape)
    return codes.ravel()[: len(flat)].reshape(w.shape), scales, decoded
