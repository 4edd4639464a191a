import numpy as np


def normalize(x, weight, bias, kind, eps):
    square = np.mean(x**2, axis=-1, keepdims=True)
    if kind == "layer":
        mean = x.mean(axis=-1, keepdims=True)
        square = np.maximum(square - mean**2, 0.0)
        x = x - mean
    scaled = x / np.sqrt(square + eps)
    return scaled * weight + (0.0 if bias is None else bias)
