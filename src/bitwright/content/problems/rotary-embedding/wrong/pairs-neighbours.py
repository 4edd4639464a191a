import numpy as np


def rotary(x, positions, theta):
    dim = x.shape[-1]
    angles = positions[:, None] * theta ** (-np.arange(0, dim, 2) / dim)
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = np.empty_like(x)
    turned[..., 0::2] = even * np.cos(angles) - odd * np.sin(angles)
    turned[..., 1::2] = odd * np.cos(angles) + even * np.sin(angles)
    return turned
