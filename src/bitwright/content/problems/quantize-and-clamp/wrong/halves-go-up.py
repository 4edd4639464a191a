import numpy as np


def quantize(x, scale, zero, low, high):
    codes = np.clip(np.floor(x / scale + 0.5) + zero, low, high).astype(np.int32)
    return codes, scale * (codes - zero)
