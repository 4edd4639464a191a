import numpy as np


def pruning_mask(weights, keep, group):
    mask = np.zeros(weights.size, dtype=bool)
    size = weights.ravel()
    width = weights.size if group is None else group
    for start in range(0, weights.size, width):
        order = np.argsort(-size[start : start + width], kind="stable")
        mask[start + order[:keep]] = True
    return mask.reshape(weights.shape)
