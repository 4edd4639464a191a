import math

import numpy as np


def psnr_and_sqnr(x, y):
    noise = float(((x - y).astype(np.float64) ** 2).sum())
    signal = float((x.astype(np.float64) ** 2).sum())
    if noise == 0:
        return math.inf, math.inf
    if signal == 0:
        return -math.inf, -math.inf
    peak = float(np.abs(x.astype(np.float64)).max())
    return 10 * math.log10(peak**2 * x.size / noise), 10 * math.log10(signal / noise)
