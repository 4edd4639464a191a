import numpy as np


def softmax(logits, axis):
    powers = np.exp(logits - logits.max())
    return powers / powers.sum(axis=axis, keepdims=True)
