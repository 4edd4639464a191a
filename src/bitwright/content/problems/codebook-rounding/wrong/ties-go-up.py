import numpy as np


def round_to_codebook(w, codebook, block):
    peak = np.maximum.reduceat(np.abs(w), np.arange(0, len(w), block))
    scales = np.where(peak > 0, peak, 1.0)
    spread = np.repeat(scales, block)[: len(w)]
    middles = (codebook[:-1] + codebook[1:]) / 2
    codes = np.searchsorted(middles, w / spread, side="right").astype(np.uint8)
    return codes, scales, spread * codebook[codes]
