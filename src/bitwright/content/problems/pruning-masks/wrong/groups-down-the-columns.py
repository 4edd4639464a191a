import numpy as np


def pruning_mask(weights, keep, group):
    size = np.abs(weights) if group is None else np.abs(weights).T
    sets = size.reshape(-1, weights.size if group is None else group)
    mask = np.zeros(sets.shape, dtype=bool)
    order = np.argsort(-sets, axis=1, kind="stable")
    np.put_along_axis(mask, order[:, :keep], True, axis=1)
    return mask.reshape(size.shape) if group is None else mask.reshape(size.shape).T
