import numpy as np


def round_to_codebook(w, codebook, block):
    peak = np.maximum.reduceat(w, np.arange(0, len(w), block))
    scales = np.where(peak > 0, peak, 1.0)
    spread = np.repeat(scales, block)[: len(w)]
    codes = np.abs((w / spread)[:, None] - codebook).argmin(axis=1).astype(np.uint8)
    return codes, scales, spread * codebook[codes]
