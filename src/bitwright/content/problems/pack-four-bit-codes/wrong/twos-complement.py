import numpy as np


def pack_unpack(codes, words, count):
    shifts = np.arange(0, 32, 4, dtype=np.uint32)
    stored = np.zeros(-(-len(codes) // 8) * 8, dtype=np.uint32)
    stored[: len(codes)] = codes & 15
    packed = np.bitwise_or.reduce(stored.reshape(-1, 8) << shifts, axis=1)
    fields = ((words[:, None] >> shifts) & 15).ravel()[:count].astype(np.int8)
    return packed, np.where(fields > 7, fields - 16, fields).astype(np.int8)
