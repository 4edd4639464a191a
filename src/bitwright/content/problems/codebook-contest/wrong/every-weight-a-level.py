import numpy as np


def encode(w, target):
    levels, codes = np.unique(w, return_inverse=True)
    return codes.astype(np.uint8), levels
