import numpy as np


def samples():
    rng = np.random.default_rng(3)
    return [
        (
            "bell-shaped weights",
            (rng.normal(0, 0.02, 64).round(4), 9.0),
            "Two bits per code are enough if the levels stand well.",
        ),
    ]


def hidden():
    rng = np.random.default_rng(7)
    heavy = rng.standard_t(3, 1024) * 0.05
    pair = np.where(np.arange(128) % 2, 0.5, -0.25)
    spread = rng.normal(0, 1, 512)
    spread[100] = 40.0
    return [
        ("one value only", (np.full(64, 0.125), 24.0)),
        ("two values only", (pair, 24.0)),
        ("heavy tails", (heavy, 18.0)),
        ("one outlier", (spread, 20.0)),
        ("evenly spread", (np.linspace(-1, 1, 2048), 24.0)),
        ("all positive", (np.abs(rng.normal(3, 0.5, 256)), 20.0)),
        ("a long vector", (rng.laplace(0, 0.1, 4096), 15.0)),
    ]


def generate(rng, size):
    n = 64 + 8 * size
    return (rng.normal(0, 1, n) * rng.choice([0.01, 1.0, 30.0]), float(rng.uniform(6.5, 22)))
