import math

import numpy as np


def psnr_and_sqnr(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """PSNR with the peak max|x|, and SQNR, in dB, of the original `x` and its reconstruction `y`."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    signal = float((x**2).sum())
    noise = float(((x - y) ** 2).sum())
    if noise == 0:
        return math.inf, math.inf
    if signal == 0:
        return -math.inf, -math.inf
    peak = float(np.abs(x).max())
    psnr = 10 * math.log10(peak**2 * x.size / noise)
    sqnr = 10 * math.log10(signal / noise)
    return psnr, sqnr
