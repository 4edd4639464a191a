import numpy as np


def softmax(logits, axis):
    peak = logits.max(axis=-1, keepdims=True)
    powers = np.exp(logits - np.where(np.isfinite(peak), peak, 0.0))
    total = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(total > 0, total, 1.0)
