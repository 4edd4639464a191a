import numpy as np


def rotary(x, positions, theta):
    dim = x.shape[-1]
    angles = np.outer(positions, theta ** (-np.arange(dim) / dim))
    swapped = np.concatenate([-x[..., dim // 2 :], x[..., : dim // 2]], axis=-1)
    return x * np.cos(angles) + swapped * np.sin(angles)
