import numpy as np


def lloyd(x, levels, rounds):
    levels = levels.copy()
    for _ in range(rounds):
        codes = np.abs(x[:, None] - levels).argmin(axis=1)
        for k in np.unique(codes):
            levels[k] = x[codes == k].mean()
    return levels, np.abs(x[:, None] - levels).argmin(axis=1)
