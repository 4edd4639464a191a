import numpy as np


def causal_attention(q, k, v, keep):
    tokens, dim = q.shape
    scores = q @ k.T / np.sqrt(dim)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights = powers / powers.sum(axis=1, keepdims=True)
    weights = np.where(np.tri(tokens, dtype=bool) & keep, weights, 0.0)
    return weights @ v
