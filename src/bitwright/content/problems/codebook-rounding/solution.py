import numpy as np


def round_to_codebook(w: np.ndarray, codebook: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (uint8), scales (float64, one for each block) and decoded values (float64) of `w`, float64 (n,)."""
    peak = np.maximum.reduceat(np.abs(w), np.arange(0, len(w), block))
    scales = np.where(peak > 0, peak, 1.0)
    spread = np.repeat(scales, block)[: len(w)]
    middles = (codebook[:-1] + codebook[1:]) / 2
    codes = np.searchsorted(middles, w / spread, side="left").astype(np.uint8)
    return codes, scales, spread * codebook[codes]
