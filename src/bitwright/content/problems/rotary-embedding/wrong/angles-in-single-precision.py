import numpy as np


def rotary(x, positions, theta):
    dim = x.shape[-1]
    frequencies = (1.0 / theta ** (np.arange(0, dim, 2) / dim)).astype(np.float32)
    angles = np.outer(positions.astype(np.float32), frequencies)
    cosine, sine = np.cos(angles), np.sin(angles)
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
