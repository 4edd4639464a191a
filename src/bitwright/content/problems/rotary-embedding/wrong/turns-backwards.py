import numpy as np


def rotary(x, positions, theta):
    dim = x.shape[-1]
    angles = np.outer(positions, 1.0 / theta ** (np.arange(0, dim, 2) / dim))
    cosine = np.concatenate([np.cos(angles), np.cos(angles)], axis=-1)
    sine = np.concatenate([np.sin(angles), np.sin(angles)], axis=-1)
    swapped = np.concatenate([x[..., dim // 2 :], -x[..., : dim // 2]], axis=-1)
    return x * cosine + swapped * sine
