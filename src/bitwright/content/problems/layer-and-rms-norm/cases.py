import numpy as np

ROW = np.array([[1.0, 2.0, 3.0, 6.0]])
ONES = np.ones(4)


def samples():
    return [
        ("layer norm", (ROW, ONES, None, "layer", 1e-5), "The mean is 3, the variance 14 / 4."),
        ("root mean square", (ROW, ONES, None, "rms", 1e-5), "The mean of the squares is 50 / 4; the mean stays."),
        (
            "weight and bias",
            (np.array([[1.0, -1.0], [4.0, 2.0]]), np.array([2.0, 0.5]), np.array([0.0, 10.0]), "layer", 1e-5),
            "Each row is normalized alone, then both get the same weight and bias.",
        ),
    ]


def hidden():
    quiet = np.array([[1e-3, -2e-3, 0.5e-3, 1e-3]])
    far = 1e6 + np.array([[0.53, -1.07, 2.11, -1.43], [1.13, 0.01, -0.29, 2.97]])
    weight, bias = np.array([1.0, -2.0, 0.5, 3.0]), np.array([0.1, 0.2, -0.3, 0.4])
    return [
        ("constant row", (np.full((2, 4), 2.5), weight, bias, "layer", 1e-5)),
        ("zeros", (np.zeros((2, 4)), weight, bias, "rms", 1e-6)),
        ("quiet row, layer", (quiet, weight, None, "layer", 1e-5)),
        ("quiet row, rms", (quiet, weight, bias, "rms", 1e-5)),
        ("far from zero", (far, weight, bias, "layer", 1e-5)),
        ("far from zero, rms", (far, weight, None, "rms", 1e-5)),
        ("large epsilon", (ROW, weight, None, "layer", 0.5)),
        ("one feature", (np.array([[3.0], [-2.0]]), np.array([2.0]), np.array([1.0]), "layer", 1e-5)),
        (
            "rms with bias",
            (np.array([[3.0, 4.0], [-1.0, 1.0]]), np.array([1.0, 2.0]), np.array([5.0, 6.0]), "rms", 1e-6),
        ),
    ]


def generate(rng, size):
    tokens, features = int(rng.integers(1, size + 2)), int(rng.integers(1, 2 * size + 2))
    x = rng.normal(size=(tokens, features)) * rng.choice([0.003, 1.0, 30.0]) + rng.choice([0.0, 2.0])
    bias = rng.normal(size=features) if rng.random() < 0.5 else None
    kind = "layer" if rng.random() < 0.5 else "rms"
    return (x, rng.normal(size=features), bias, kind, float(rng.choice([1e-6, 1e-5, 1e-3])))
