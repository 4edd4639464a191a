import numpy as np


def pack_unpack(codes, words, count):
    shifts = np.arange(0, 32, 4, dtype=np.uint32)
    padded = np.pad(codes, (0, -len(codes) % 8))
    stored = (padded + 8).astype(np.uint32)
    packed = np.bitwise_or.reduce(stored.reshape(-1, 8) << shifts, axis=1)
    fields = (words[:, None] >> shifts) & 15
    return packed, fields.ravel()[:count].astype(np.int8) - 8
