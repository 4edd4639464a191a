import numpy as np


def lloyd(x, levels, rounds):
    levels = levels.copy()
    for _ in range(rounds):
        codes = np.searchsorted((levels[:-1] + levels[1:]) / 2, x, side="right")
        for k in np.unique(codes):
            levels[k] = x[codes == k].mean()
    return levels, np.searchsorted((levels[:-1] + levels[1:]) / 2, x, side="right")
