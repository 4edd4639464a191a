import numpy as np


def normalize(x, weight, bias, kind, eps):
    if kind == "layer":
        x = x - x.mean(axis=0)
    scaled = x / np.sqrt(np.mean(x**2, axis=0) + eps)
    return scaled * weight + (0.0 if bias is None else bias)
