import numpy as np


def normalize(x, weight, bias, kind, eps):
    variance = x.var(axis=-1, keepdims=True)
    if kind == "layer":
        x = x - x.mean(axis=-1, keepdims=True)
    scaled = x / np.sqrt(variance + eps)
    return scaled * weight + (0.0 if bias is None else bias)
