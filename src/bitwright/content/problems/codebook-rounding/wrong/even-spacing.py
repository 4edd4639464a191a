import numpy as np


def round_to_codebook(w, codebook, block):
    peak = np.maximum.reduceat(np.abs(w), np.arange(0, len(w), block))
    scales = np.where(peak > 0, peak, 1.0)
    spread = np.repeat(scales, block)[: len(w)]
    codes = np.rint((w / spread + 1) / 2 * (len(codebook) - 1)).astype(np.uint8)
    return codes, scales, spread * codebook[codes]
