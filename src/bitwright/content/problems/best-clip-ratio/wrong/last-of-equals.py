import numpy as np


def best_clip(x, bits, ratios):
    top = 2 ** (bits - 1) - 1
    peak = np.abs(x).max()
    best, least = 0.0, np.inf
    for ratio in ratios:
        scale = ratio * peak / top or 1.0
        codes = np.clip(np.rint(x / scale), -top, top)
        mse = np.mean((x - scale * codes) ** 2)
        if mse <= least:
            best, least = float(ratio), float(mse)
    return best, least
