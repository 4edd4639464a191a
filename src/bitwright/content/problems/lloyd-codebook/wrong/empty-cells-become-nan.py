import numpy as np


def lloyd(x, levels, rounds):
    for _ in range(rounds):
        codes = np.abs(x[:, None] - levels).argmin(axis=1)
        levels = np.array([x[codes == k].mean() for k in range(len(levels))])
    return levels, np.abs(x[:, None] - levels).argmin(axis=1)
