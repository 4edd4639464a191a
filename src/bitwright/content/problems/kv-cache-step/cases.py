import numpy as np


def step(rng, lengths, new, capacity, dim, scale=1.0):
    batch = len(lengths)
    q, k, v = rng.normal(size=(3, batch, new, dim))
    keys, values = rng.normal(size=(2, batch, capacity, dim))
    behind = np.arange(capacity) >= np.array(lengths)[:, None]
    keys[behind] *= 5.0
    values[behind] += 50.0
    return (scale * q, scale * k, v, scale * keys, values, np.array(lengths, dtype=np.int64))


def samples():
    one = (
        np.array([[[1.0]]]),
        np.array([[[2.0]]]),
        np.array([[[30.0]]]),
        np.array([[[1.0], [0.0], [9.0], [9.0]]]),
        np.array([[[10.0], [20.0], [99.0], [99.0]]]),
        np.array([2]),
    )
    two = (
        np.array([[[1.0], [0.0]], [[0.0], [1.0]]]),
        np.array([[[1.0], [2.0]], [[0.0], [3.0]]]),
        np.array([[[10.0], [20.0]], [[30.0], [40.0]]]),
        np.array([[[0.0], [9.0], [9.0]], [[9.0], [9.0], [9.0]]]),
        np.array([[[50.0], [99.0], [99.0]], [[99.0], [99.0], [99.0]]]),
        np.array([1, 0]),
    )
    return [
        ("one token", one, "It goes to slot 2; the last slot is not filled and must not be seen."),
        ("two sequences", two, "The second sequence is empty: its first new token sees itself alone."),
    ]


def hidden():
    rng = np.random.default_rng(3)
    return [
        ("empty cache", step(rng, [0], 1, 1, 3)),
        ("whole prompt", step(rng, [0], 5, 6, 2)),
        ("full after the step", step(rng, [3], 2, 5, 4)),
        ("chunk behind a cache", step(rng, [4], 3, 10, 4)),
        ("lengths differ", step(rng, [0, 5, 2], 2, 8, 3)),
        ("long sequence last", step(rng, [1, 7], 1, 9, 2)),
        ("large scores", step(rng, [3, 1], 2, 6, 4, 40.0)),
        ("one feature", step(rng, [2, 3], 3, 7, 1)),
    ]


def generate(rng, size):
    new, spare = int(rng.integers(1, 4)), int(rng.integers(0, 4))
    lengths = [int(n) for n in rng.integers(0, size + 1, int(rng.integers(1, 5)))]
    return step(rng, lengths, new, max(lengths) + new + spare, int(rng.integers(1, 6)))


def grow(n):
    return step(np.random.default_rng(n), [n] * 4, 1, n + 1, 2)
