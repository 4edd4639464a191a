import numpy as np


def causal_attention(q, k, v, keep):
    tokens = len(q)
    visible = np.tri(tokens, dtype=bool) & keep
    scores = np.where(visible, q @ k.T, -np.inf)
    peak = scores.max(axis=1, keepdims=True)
    powers = np.exp(scores - np.where(np.isfinite(peak), peak, 0.0))
    total = powers.sum(axis=1, keepdims=True)
    return powers / np.where(total > 0, total, 1.0) @ v
