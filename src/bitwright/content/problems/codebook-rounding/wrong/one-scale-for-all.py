import numpy as np


def round_to_codebook(w, codebook, block):
    peak = np.abs(w).max()
    scale = peak if peak > 0 else 1.0
    codes = np.abs(w[:, None] / scale - codebook).argmin(axis=1).astype(np.uint8)
    return codes, np.full(-(-len(w) // block), scale), scale * codebook[codes]
