import numpy as np


def pruning_mask(weights, keep, group):
    if keep == 0:
        return np.zeros(weights.shape, dtype=bool)
    size = np.abs(weights).reshape(-1, weights.size if group is None else group)
    threshold = np.sort(size, axis=1)[:, -keep]
    return (size >= threshold[:, None]).reshape(weights.shape)
