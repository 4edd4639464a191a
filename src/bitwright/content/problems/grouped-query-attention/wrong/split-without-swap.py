import numpy as np


def grouped_query_attention(x, wq, wk, wv, wo, heads, kv_heads):
    tokens, dim = len(x), wq.shape[1] // heads
    q = (x @ wq).reshape(heads, tokens, dim)
    k = (x @ wk).reshape(kv_heads, tokens, dim)
    v = (x @ wv).reshape(kv_heads, tokens, dim)
    k, v = np.repeat(k, heads // kv_heads, axis=0), np.repeat(v, heads // kv_heads, axis=0)
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(dim)
    scores = np.where(np.tri(tokens, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return (weights @ v).transpose(1, 0, 2).reshape(tokens, -1) @ wo
