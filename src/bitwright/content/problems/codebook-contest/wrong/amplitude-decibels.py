import numpy as np


def encode(w, target):
    for bits in range(9):
        levels = np.linspace(w.min(), w.max(), 2**bits)
        codes = np.abs(w[:, None] - levels).argmin(1)
        noise = np.sum((w - levels[codes]) ** 2)
        if noise == 0 or 20 * np.log10(np.sum(w**2) / noise) >= target:
            break
    return codes.astype(np.uint8), levels
