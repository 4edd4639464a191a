import numpy as np


def split(projection: np.ndarray, heads: int) -> np.ndarray:
    """From (tokens, heads * dim) to (heads, tokens, dim)."""
    return projection.reshape(len(projection), heads, -1).transpose(1, 0, 2)


def grouped_query_attention(
    x: np.ndarray, wq: np.ndarray, wk: np.ndarray, wv: np.ndarray, wo: np.ndarray, heads: int, kv_heads: int
) -> np.ndarray:
    """A causal attention layer in which neighbouring query heads share keys and values."""
    tokens, dim = len(x), wq.shape[1] // heads
    queries = split(x @ wq, heads).reshape(kv_heads, heads // kv_heads, tokens, dim)
    keys = split(x @ wk, kv_heads)[:, None]
    values = split(x @ wv, kv_heads)[:, None]
    scores = queries @ keys.swapaxes(-1, -2) / np.sqrt(dim)
    scores = np.where(np.tri(tokens, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    outputs = (weights @ values).reshape(heads, tokens, dim)
    merged = outputs.transpose(1, 0, 2).reshape(tokens, heads * dim)
    return merged @ wo
