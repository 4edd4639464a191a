import numpy as np


def round_to_codebook(w, codebook, block):
    scales = np.maximum.reduceat(np.abs(w), np.arange(0, len(w), block))
    spread = np.repeat(scales, block)[: len(w)]
    codes = np.abs((w / spread)[:, None] - codebook).argmin(axis=1).astype(np.uint8)
    return codes, scales, spread * codebook[codes]
