import numpy as np


def samples():
    return [
        (
            "two rows",
            (np.array([[0.1, -0.7, 0.31], [20.0, 5.0, -8.0]]), 4),
            "The top code is 7. Row by row, the largest size lands on 7 or -7.",
        ),
        ("a row of zeros", (np.array([[0.0, 0.0], [-0.4, 0.1]]), 8), "Its scale is 1, not 0."),
    ]


def hidden():
    return [
        ("zeros only", (np.zeros((2, 3)), 4)),
        ("one weight", (np.array([[-0.37]]), 8)),
        ("negative peak", (np.array([[-3.0, 1.3, 0.2], [0.4, -0.9, 0.1]]), 3)),
        ("three levels", (np.array([[0.9, -0.3, 0.6, -0.8], [0.1, 0.04, -0.02, 0.0]]), 2)),
        ("one column", (np.array([[1.0], [0.0], [-2.5]]), 5)),
        ("square", (np.array([[1.0, 2.1, 3.0], [0.1, -0.22, 0.3], [10.0, 20.5, -33.0]]), 6)),
        ("very different rows", (np.array([[2e-9, -1.1e-9, 1.3e-9], [4.1e8, 1e9, -3e8]]), 8)),
        ("tiny row", (np.array([[3e-9, -2e-9], [1.0, 0.3]]), 4)),
    ]


def generate(rng, size):
    bits = int(rng.integers(2, 9))
    top = 2 ** (bits - 1) - 1
    rows, columns = 1 + size % 5, size + 1
    while True:
        w = rng.normal(0, 1, (rows, columns)) * 10.0 ** rng.uniform(-3, 3, (rows, 1))
        if rng.random() < 0.3:
            w[rng.integers(rows)] = 0
        peak = np.abs(w).max(axis=1, keepdims=True)
        ratio = w / np.where(peak > 0, peak, 1.0) * top
        if np.all(np.abs(ratio % 1 - 0.5) > 1e-6):
            return w, bits
