import numpy as np


def softmax(logits, axis):
    peak = logits.max(axis=axis, keepdims=True)
    powers = np.exp(logits - np.where(np.isfinite(peak), peak, 0.0))
    return powers / (powers.sum(axis=axis, keepdims=True) + 1e-6)
