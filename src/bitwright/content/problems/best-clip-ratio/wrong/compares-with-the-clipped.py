import numpy as np


def best_clip(x, bits, ratios):
    top = 2 ** (bits - 1) - 1
    peak = np.abs(x).max()
    if peak == 0:
        return float(ratios[0]), 0.0
    best, least = 0.0, np.inf
    for ratio in ratios:
        limit = ratio * peak
        clipped = np.clip(x, -limit, limit)
        scale = limit / top
        mse = np.mean((clipped - scale * np.rint(clipped / scale)) ** 2)
        if mse < least:
            best, least = float(ratio), float(mse)
    return best, least
