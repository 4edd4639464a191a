import math

import numpy as np


def psnr_and_sqnr(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    signal, noise = float((x**2).sum()), float(((x - y) ** 2).sum())
    peak = float(np.abs(x).max())
    tiny = 1e-12
    psnr = 10 * math.log10((peak**2 + tiny) / (noise / x.size + tiny))
    return psnr, 10 * math.log10((signal + tiny) / (noise + tiny))
