import numpy as np


def causal_attention(q, k, v):
    scores = q @ k.T
    scores /= np.sqrt(q.shape[1])
    scores[~np.tri(len(q), dtype=bool)] = -np.inf
    scores -= scores.max(axis=1, keepdims=True)
    weights = np.exp(scores, out=scores)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights @ v


def cache_step(q, k, v, keys, values, lengths):
    batch, new, dim = q.shape
    output = np.empty_like(q)
    for b in range(batch):
        start, end = lengths[b], lengths[b] + new
        keys[b, start:end] = k[b]
        values[b, start:end] = v[b]
        queries = np.concatenate([np.zeros((start, dim)), q[b]])
        output[b] = causal_attention(queries, keys[b, :end], values[b, :end])[-new:]
    return output, keys, values
