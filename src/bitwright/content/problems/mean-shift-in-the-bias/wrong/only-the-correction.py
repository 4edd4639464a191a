import numpy as np


def correct_bias(w, wq, bias, x, mask):
    if not mask.any():
        return np.zeros(len(w)) if bias is None else bias
    return (w - wq) @ x[mask].mean(axis=0)
