import numpy as np


def encode(w, target):
    levels = np.linspace(w.min(), w.max(), 16)
    codes = np.abs(w[:, None] - levels).argmin(1)
    return codes.astype(np.uint8), levels
