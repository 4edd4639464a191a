import numpy as np


def lloyd(x, levels, rounds):
    levels = levels.copy()
    for _ in range(rounds):
        codes = np.searchsorted((levels[:-1] + levels[1:]) / 2, x)
        for k in np.unique(codes):
            levels[k] = np.median(x[codes == k])
    return levels, np.searchsorted((levels[:-1] + levels[1:]) / 2, x)
