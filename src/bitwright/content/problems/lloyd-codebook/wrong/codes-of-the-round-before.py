import numpy as np


def lloyd(x, levels, rounds):
    levels = levels.copy()
    codes = np.searchsorted((levels[:-1] + levels[1:]) / 2, x)
    for _ in range(rounds):
        codes = np.searchsorted((levels[:-1] + levels[1:]) / 2, x)
        for k in np.unique(codes):
            levels[k] = x[codes == k].mean()
    return levels, codes
