import numpy as np


def samples():
    return [
        (
            "a ragged end",
            (np.array([[0.7, -0.22, 7.0, 1.3, -0.14]]), 2, 4),
            "Groups of 2, 2 and 1 columns. The last scale is 0.14 / 7.",
        ),
        (
            "two rows",
            (np.array([[3.0, 1.0, -0.3], [0.0, 0.0, 0.6]]), 2, 3),
            "The first group of the second row is all zeros: scale 1.",
        ),
    ]


def hidden():
    return [
        ("whole groups", (np.array([[0.3, -0.8, 5.0, 2.1], [9.0, -1.3, 0.2, 0.05]]), 2, 4)),
        ("group wider than the row", (np.array([[0.5, -1.2, 0.33], [2.0, 0.1, -0.4]]), 8, 4)),
        ("group as wide as the row", (np.array([[0.5, -1.2, 0.33], [2.0, 0.1, -0.4]]), 3, 8)),
        ("groups of one", (np.array([[0.5, 0.0, -0.33]]), 1, 4)),
        ("zeros only", (np.zeros((2, 5)), 2, 4)),
        ("zeros at the ragged end", (np.array([[1.0, -0.3, 0.6, 0.0], [0.2, 0.9, -0.1, 0.0]]), 3, 4)),
        ("negative peak", (np.array([[-4.0, 1.0, 0.9, -0.2, -0.7]]), 3, 3)),
        ("large value at the ragged end", (np.array([[0.11, 0.2, -0.13, 50.0], [0.3, -0.1, 0.2, -80.0]]), 3, 4)),
        ("one column", (np.array([[1.0], [0.0], [-2.5]]), 4, 2)),
        ("many rows, one ragged column", (np.cbrt(np.arange(1.0, 16.0)).reshape(3, 5), 4, 5)),
    ]


def generate(rng, size):
    bits = int(rng.integers(2, 9))
    top = 2 ** (bits - 1) - 1
    rows, columns = 1 + size % 4, size + 1
    group = int(rng.integers(1, columns + 2))
    while True:
        w = rng.normal(0, 1, (rows, columns)) * 10.0 ** rng.uniform(-2, 2, (rows, columns))
        if rng.random() < 0.3:
            w[rng.integers(rows), :group] = 0
        w = np.where(np.abs(w) < 1e-6, 0.0, w)
        peak = np.maximum.reduceat(np.abs(w), np.arange(0, columns, group), axis=1)
        step = np.repeat(np.where(peak > 0, peak, 1.0) / top, group, axis=1)[:, :columns]
        if np.all(np.abs((w / step) % 1 - 0.5) > 1e-6):
            return w, group, bits
