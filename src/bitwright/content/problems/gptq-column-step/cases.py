import numpy as np


def factor(x):
    """The upper Cholesky factor of the inverse of E[x x^T], a little damped."""
    hessian = x.T @ x / len(x)
    hessian += 0.01 * hessian.diagonal().mean() * np.eye(len(hessian))
    return np.linalg.cholesky(np.linalg.inv(hessian)).T.copy()


def samples():
    u = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, -0.8], [0.0, 0.0, 1.25]])
    return [
        (
            "first column",
            (np.array([[0.7, 0.2, -0.4], [-1.3, 0.9, 0.6]]), u, 0, np.array([0.5, 1.0]), 3),
            "First row: 0.7 becomes 0.5, e = 0.2 / 2 = 0.1. The later weights get -0.1 * -1 and -0.1 * 0.5.",
        ),
        (
            "last column",
            (np.array([[0.5, 0.25, -0.4], [-1.0, 0.5, 0.6]]), u, 2, np.array([0.5, 1.0]), 3),
            "No column is left to make up for the error.",
        ),
    ]


def hidden():
    x = np.sin(np.arange(60.0) ** 1.5).reshape(15, 4) + np.cos(np.arange(15.0))[:, None]
    u = factor(x)
    w = np.cos(np.arange(12.0) * 2.3).reshape(3, 4)
    steps = np.array([0.3, 0.21, 0.17])
    return [
        ("first of four", (w, u, 0, steps, 4)),
        ("in the middle", (w, u, 2, steps, 4)),
        ("last of four", (w, u, 3, steps, 4)),
        ("clamped above and below", (w * 9, u, 1, steps, 3)),
        ("two bits", (w, u, 1, steps * 2, 2)),
        ("eight bits", (w, u, 1, steps / 30, 8)),
        ("independent inputs", (w, np.diag([1.0, 2.0, 0.5, 3.0]), 1, steps, 4)),
        ("already on the grid", (np.array([[0.6, 0.1], [-0.42, 0.2]]), factor(x[:, :2]), 0, steps[:2], 4)),
        ("one weight", (np.array([[0.4]]), np.array([[1.5]]), 0, np.array([0.3]), 4)),
        ("one row", (w[:1], u, 0, steps[:1], 4)),
    ]


def generate(rng, size):
    rows, columns = 1 + size % 5, 2 + size % 9
    bits = int(rng.integers(2, 6))
    while True:
        u = factor(rng.normal(0, 1, (3 * columns, columns)) + rng.normal(0, 1, (3 * columns, 1)))
        w = rng.normal(0, 1, (rows, columns))
        scale = np.abs(w).max(axis=1) / 2 ** (bits - 1) * rng.uniform(0.7, 1.2, rows)
        column = int(rng.integers(0, columns))
        if np.all(np.abs((w[:, column] / scale) % 1 - 0.5) > 1e-6):
            return w, u, column, scale, bits
