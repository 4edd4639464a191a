import numpy as np


def best_clip(x, bits, ratios):
    top = 2 ** (bits - 1) - 1
    peak = np.abs(x).max()
    if peak == 0:
        return float(ratios[0]), 0.0
    best, least, result = 0.0, np.inf, 0.0
    for ratio in ratios:
        scale = ratio * peak / top
        error = x - scale * np.clip(np.rint(x / scale), -top, top)
        if np.abs(error).sum() < least:
            best, least, result = float(ratio), np.abs(error).sum(), float(np.mean(error**2))
    return best, result
