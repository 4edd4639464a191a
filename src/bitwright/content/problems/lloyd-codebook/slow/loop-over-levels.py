import numpy as np


def lloyd(x, levels, rounds):
    levels = levels.copy()
    codes = np.searchsorted((levels[:-1] + levels[1:]) / 2, x)
    for _ in range(rounds):
        for k in range(len(levels)):
            members = x[codes == k]
            if len(members):
                levels[k] = members.mean()
        codes = np.searchsorted((levels[:-1] + levels[1:]) / 2, x)
    return levels, codes
