import numpy as np


def samples():
    return [
        (
            "two values",
            (np.array([3.0, -4.0]), np.array([3.0, -3.0])),
            "Squared errors: 0 and 1. PSNR compares 4 * 4 with their mean, SQNR compares 9 + 16 with their sum.",
        ),
        ("nothing lost", (np.array([1.0, 2.0]), np.array([1.0, 2.0]))),
        (
            "unsigned bytes",
            (np.array([5, 200, 90], dtype=np.uint8), np.array([7, 199, 90], dtype=np.uint8)),
            "The first error is -2, and not 254.",
        ),
    ]


def hidden():
    return [
        ("zeros that stay zeros", (np.zeros(4), np.zeros(4))),
        ("zeros that got noise", (np.zeros(3), np.array([0.1, 0.0, -0.2]))),
        ("all became zero", (np.array([0.3, -0.7]), np.zeros(2))),
        ("negative peak", (np.array([-8.0, 2.0, 1.0]), np.array([-7.5, 2.0, 1.5]))),
        ("lowest signed byte", (np.array([-128, 100, 3], dtype=np.int8), np.array([-127, 101, 3], dtype=np.int8))),
        ("far bytes", (np.array([0, 255, 10], dtype=np.uint8), np.array([255, 0, 10], dtype=np.uint8))),
        (
            "single precision",
            (np.array([1000.0, 0.001, 3.3], dtype=np.float32), np.array([1000.0, 0.002, 3.3], dtype=np.float32)),
        ),
        ("a matrix", (np.array([[0.5, -1.5], [2.5, 0.25]]), np.array([[0.4, -1.6], [2.4, 0.3]]))),
        ("one value", (np.array([2.0]), np.array([1.5]))),
    ]


def generate(rng, size):
    kind = rng.choice(["float64", "float32", "uint8", "int8"])
    if kind in ("uint8", "int8"):
        low, high = (0, 255) if kind == "uint8" else (-128, 127)
        x = rng.integers(low, high + 1, size + 1)
        y = np.clip(x + rng.integers(-3, 4, size + 1), low, high)
        y[0] = x[0] - 1 if x[0] > low else x[0] + 1
        x[-1] = x[-1] or 1
        return x.astype(kind), y.astype(kind)
    x = rng.normal(0, 1, size + 1) * 10.0 ** rng.uniform(-2, 2)
    step = np.abs(x).max() / 7
    return x.astype(kind), (np.rint(x / step) * step + 0.01 * step).astype(kind)
