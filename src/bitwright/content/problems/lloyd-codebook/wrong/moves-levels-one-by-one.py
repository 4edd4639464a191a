import numpy as np


def lloyd(x, levels, rounds):
    levels = levels.copy()
    for _ in range(rounds):
        for k in range(len(levels)):
            codes = np.searchsorted((levels[:-1] + levels[1:]) / 2, x)
            if np.any(codes == k):
                levels[k] = x[codes == k].mean()
    return levels, np.searchsorted((levels[:-1] + levels[1:]) / 2, x)
