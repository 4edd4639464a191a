import numpy as np


def layer(rng, tokens, width, heads, kv_heads, dim, scale=1.0):
    x = rng.normal(size=(tokens, width)) * scale
    wq, wo = rng.normal(size=(width, heads * dim)), rng.normal(size=(heads * dim, width))
    wk, wv = rng.normal(size=(2, width, kv_heads * dim))
    return (x, wq / np.sqrt(width), wk / np.sqrt(width), wv, wo, heads, kv_heads)


def samples():
    x = np.array([[1.0, 0.0], [0.0, 1.0]])
    wq = np.array([[1.0, 0.0, 2.0, 0.0], [0.0, 1.0, 0.0, 2.0]])
    wk = np.array([[1.0, 0.0], [0.0, 1.0]])
    wv = np.array([[1.0, 3.0], [2.0, 4.0]])
    wo = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    rng = np.random.default_rng(1)
    small = [np.round(a, 1) if isinstance(a, np.ndarray) else a for a in layer(rng, 2, 2, 4, 2, 1)]
    return [
        (
            "two heads share one",
            (x, wq, wk, wv, wo, 2, 1),
            "Both heads read the same keys. The first token sees only its own value, once through each head.",
        ),
        ("four heads on two", tuple(small), "Heads 0 and 1 share the first keys and values, 2 and 3 the second."),
    ]


def hidden():
    rng = np.random.default_rng(11)
    return [
        ("one token", layer(rng, 1, 3, 4, 2, 2)),
        ("multi head", layer(rng, 4, 6, 3, 3, 2)),
        ("multi query", layer(rng, 4, 5, 4, 1, 3)),
        ("groups of two", layer(rng, 5, 8, 4, 2, 2)),
        ("groups of three", layer(rng, 3, 4, 6, 2, 3)),
        ("tokens as many as heads", layer(rng, 4, 4, 4, 2, 4)),
        ("one head", layer(rng, 5, 3, 1, 1, 4)),
        ("large scores", layer(rng, 4, 4, 4, 2, 3, 60.0)),
    ]


def generate(rng, size):
    kv_heads = int(rng.integers(1, 4))
    heads = kv_heads * int(rng.integers(1, 4))
    tokens, width = int(rng.integers(1, size + 2)), int(rng.integers(1, min(size, 12) + 2))
    return layer(rng, tokens, width, heads, kv_heads, int(rng.integers(1, 5)))
