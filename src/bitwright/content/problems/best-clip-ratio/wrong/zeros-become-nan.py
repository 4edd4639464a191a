import numpy as np


def best_clip(x, bits, ratios):
    top = 2 ** (bits - 1) - 1
    scales = ratios[:, None] * np.abs(x).max() / top
    codes = np.clip(np.rint(x / scales), -top, top)
    errors = ((x - scales * codes) ** 2).mean(axis=1)
    best = errors.argmin()
    return float(ratios[best]), float(errors[best])
