from statistics import NormalDist

import numpy as np


def nf4():
    """The sixteen levels of NF4: quantiles of a normal distribution, scaled to [-1, 1], with an exact zero."""
    tail = (1 - 1 / 30 + 1 - 1 / 32) / 2
    quantile = NormalDist().inv_cdf
    up = [quantile(tail + (0.5 - tail) * i / 8) for i in range(8)]
    down = [-quantile(tail + (0.5 - tail) * i / 7) for i in range(7)]
    return np.array(sorted([*down, 0.0, *up])) / up[0]


FIVE = np.array([-1.0, -0.25, 0.0, 0.25, 1.0])


def samples():
    return [
        (
            "five levels",
            (np.array([2.0, -0.3, 1.3, 0.1, 0.02, -0.01]), FIVE, 4),
            "Blocks of 4 and 2 weights. 1.3 / 2 = 0.65 is nearer to 1 than to 0.25.",
        ),
        (
            "ties go down",
            (np.array([8.0, 5.0, 1.0, -1.0, -5.0]), FIVE, 8),
            "5 / 8 lies exactly between 0.25 and 1: the lower level. -1 / 8 lies between -0.25 and 0.",
        ),
    ]


def hidden():
    wave = np.sin(np.arange(30.0)) * np.linspace(0.1, 3.0, 30)
    return [
        ("normal float levels", (wave, nf4(), 16)),
        ("negative peak", (np.array([-4.0, 1.0, 0.3, 3.5]), FIVE, 4)),
        ("a block of zeros", (np.array([0.0, 0.0, 0.5, -0.2]), FIVE, 2)),
        ("zeros without a level for zero", (np.zeros(3), np.array([-0.5, 0.1, 0.7]), 2)),
        ("zeros between two levels", (np.zeros(2), np.array([-0.5, 0.5]), 2)),
        ("levels that do not reach one", (np.array([1.0, -1.0, 0.2]), np.array([-0.6, 0.0, 0.5]), 3)),
        ("blocks of one", (np.array([3.0, -0.2, 0.0]), FIVE, 1)),
        ("block wider than the array", (np.array([0.3, -0.9, 0.05]), nf4(), 64)),
        ("two levels", (np.array([0.7, -0.1, 0.2, -0.9]), np.array([-1.0, 1.0]), 4)),
        ("an even grid", (wave, np.linspace(-1, 1, 256), 7)),
    ]


def generate(rng, size):
    block = int(rng.integers(1, size + 3))
    while True:
        w = rng.normal(0, 1, size + 2) * 10.0 ** rng.uniform(-2, 2)
        if rng.random() < 0.3:
            w[:block] = 0
        codebook = nf4() if rng.random() < 0.5 else np.sort(rng.uniform(-1, 1, int(rng.integers(3, 20))))
        if np.any((np.abs(w) < 1e-6) & (w != 0)):
            continue
        peak = np.maximum.reduceat(np.abs(w), np.arange(0, len(w), block))
        unit = w / np.repeat(np.where(peak > 0, peak, 1.0), block)[: len(w)]
        distance = np.sort(np.abs(unit[:, None] - codebook), axis=1)
        if np.all(distance[:, 1] - distance[:, 0] > 1e-6) and np.all(np.diff(codebook) > 1e-4):
            return w, codebook, block
