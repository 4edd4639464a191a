import numpy as np


def normalize(x, weight, bias, kind, eps):
    if kind == "rms":
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * weight
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + eps)
    return scaled * weight + (0.0 if bias is None else bias)
