import numpy as np


def grouped_query_attention(
    x: np.ndarray, wq: np.ndarray, wk: np.ndarray, wv: np.ndarray, wo: np.ndarray, heads: int, kv_heads: int
) -> np.ndarray:
    """A causal attention layer in which neighbouring query heads share keys and values."""
    raise NotImplementedError
