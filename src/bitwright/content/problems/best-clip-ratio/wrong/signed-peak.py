import numpy as np


def best_clip(x, bits, ratios):
    top = 2 ** (bits - 1) - 1
    peak = x.max()
    if peak == 0:
        return float(ratios[0]), 0.0
    best, least = 0.0, np.inf
    for ratio in ratios:
        scale = ratio * peak / top
        mse = np.mean((x - scale * np.clip(np.rint(x / scale), -top, top)) ** 2)
        if mse < least:
            best, least = float(ratio), float(mse)
    return best, least
