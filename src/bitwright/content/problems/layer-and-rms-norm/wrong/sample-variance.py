import numpy as np


def normalize(x, weight, bias, kind, eps):
    if kind == "layer":
        variance = x.var(axis=-1, keepdims=True, ddof=1)
        scaled = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(variance + eps)
    else:
        scaled = x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps)
    return scaled * weight + (0.0 if bias is None else bias)
