import numpy as np


def softmax(logits, axis):
    powers = np.exp(logits)
    return powers / powers.sum(axis=axis, keepdims=True)
