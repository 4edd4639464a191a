import numpy as np


def pack_unpack(codes, words, count):
    stored = np.zeros(-(-len(codes) // 8) * 8, dtype=np.uint8)
    stored[: len(codes)] = codes + 8
    packed = np.zeros(len(stored) // 8, dtype=np.uint32)
    for i in range(8):
        packed |= stored[i::8] << np.uint8(4 * i)
    shifts = np.arange(0, 32, 4, dtype=np.uint32)
    fields = (words[:, None] >> shifts) & 15
    return packed, fields.ravel()[:count].astype(np.int8) - 8
