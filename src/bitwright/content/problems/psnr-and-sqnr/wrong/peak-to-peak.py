import math

import numpy as np


def psnr_and_sqnr(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    signal, noise = float((x**2).sum()), float(((x - y) ** 2).sum())
    if noise == 0:
        return math.inf, math.inf
    peak = float(x.max() - x.min())
    if signal == 0 or peak == 0:
        return -math.inf, -math.inf
    return 10 * math.log10(peak**2 * x.size / noise), 10 * math.log10(signal / noise)
