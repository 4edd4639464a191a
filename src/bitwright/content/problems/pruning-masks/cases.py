import numpy as np

W = np.array([[0.1, -0.9, 0.4, 0.3], [-0.2, 0.05, 0.8, -0.7]])


def samples():
    return [
        ("unstructured", (W, 3, None), "The three largest of all eight; the first row keeps one of them."),
        ("two of four", (W, 2, 4), "Two in each row: 0.4 is now kept, and in the second row 0.8 and -0.7."),
        ("one of two", (W, 1, 2), "Groups lie beside each other in a row."),
        ("equal weights", (np.array([[1.0, -1.0, 1.0, 1.0]]), 2, 4), "All the same size: the first two are kept."),
    ]


def hidden():
    rng = np.random.default_rng(2)
    square = rng.permutation(np.arange(1.0, 65.0)).reshape(8, 8) * np.where(np.arange(8) % 2, -1.0, 1.0)
    coded = np.array([[3.0, -3.0, 1.0, 3.0, 0.0, -1.0, 1.0, 1.0], [2.0, 2.0, -2.0, 2.0, -3.0, 0.0, 3.0, -3.0]])
    return [
        ("keep nothing", (W, 0, 4)),
        ("keep nothing at all", (W, 0, None)),
        ("keep everything", (W, 8, None)),
        ("keep every group", (W, 4, 4)),
        ("ties in groups", (coded, 2, 4)),
        ("ties across rows", (coded, 5, None)),
        ("all zeros", (np.zeros((2, 4)), 1, 2)),
        ("negative zeros", (np.array([[0.0, -0.0, -0.0, 0.0]]), 2, 4)),
        ("square", (square, 2, 4)),
        ("square, unstructured", (square, 19, None)),
        ("four of eight", (square, 4, 8)),
        ("large negative weights", (-np.abs(square), 1, 4)),
        ("one weight", (np.array([[0.5]]), 1, None)),
    ]


def generate(rng, size):
    group = int(rng.choice([1, 2, 4, 8]))
    rows, columns = int(rng.integers(1, size + 2)), group * int(rng.integers(1, size // 2 + 2))
    weights = rng.normal(size=(rows, columns))
    if rng.random() < 0.4:
        return (weights, int(rng.integers(0, rows * columns + 1)), None)
    return (weights, int(rng.integers(0, group + 1)), group)
