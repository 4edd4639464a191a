import numpy as np


def samples():
    return [
        (
            "two features",
            (np.array([[[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]]), np.array([0, 1, 1]), 10000.0),
            "Position 0 turns nothing; position 1 turns by one radian.",
        ),
        (
            "four features",
            (np.array([[[1.0, 2.0, 3.0, 4.0]]]), np.array([3]), 100.0),
            "The pairs are (1, 3) and (2, 4); they turn by 3 and by 0.3 radians.",
        ),
    ]


def hidden():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(2, 4, 8))
    return [
        ("position zero", (x, np.zeros(4, dtype=np.int64), 10000.0)),
        ("begins later", (x, np.arange(17, 21), 10000.0)),
        ("positions with gaps", (x, np.array([5, 0, 90, 7]), 10000.0)),
        ("far positions", (x, np.array([999999, 123456, 500000, 1000000]), 500000.0)),
        ("small base", (x, np.arange(4), 2.0)),
        ("one pair", (x[:, :, :2], np.arange(4), 10000.0)),
        ("tokens as many as pairs", (x, np.array([1, 2, 3, 4]), 100.0)),
        ("zeros", (np.zeros((1, 2, 6)), np.array([1, 2]), 10000.0)),
    ]


def generate(rng, size):
    heads, tokens = int(rng.integers(1, 4)), int(rng.integers(1, size + 2))
    dim = 2 * int(rng.integers(1, min(size, 8) + 2))
    positions = rng.integers(0, int(rng.choice([10, 5000])), tokens)
    return (rng.normal(size=(heads, tokens, dim)), positions, float(rng.choice([100.0, 10000.0, 500000.0])))
