import numpy as np


def softmax(logits, axis):
    logits = np.maximum(logits, -1e9)
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)
