import numpy as np


def pack_unpack(codes, words, count):
    shifts = np.arange(28, -1, -4, dtype=np.uint32)
    stored = np.zeros(-(-len(codes) // 8) * 8, dtype=np.uint32)
    stored[: len(codes)] = codes + 8
    packed = np.bitwise_or.reduce(stored.reshape(-1, 8) << shifts, axis=1)
    fields = (words[:, None] >> shifts) & 15
    return packed, fields.ravel()[:count].astype(np.int8) - 8
