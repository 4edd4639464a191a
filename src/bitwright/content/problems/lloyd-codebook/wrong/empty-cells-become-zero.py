import numpy as np


def lloyd(x, levels, rounds):
    levels = levels.copy()
    for _ in range(rounds):
        codes = np.searchsorted((levels[:-1] + levels[1:]) / 2, x)
        for k in range(len(levels)):
            members = x[codes == k]
            levels[k] = members.sum() / max(len(members), 1)
        levels.sort()
    return levels, np.searchsorted((levels[:-1] + levels[1:]) / 2, x)
