import numpy as np

MASK = -np.inf


def samples():
    return [
        (
            "two rows",
            (np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]), 1),
            "Each row adds up to one; equal logits share equally.",
        ),
        (
            "large logits",
            (np.array([1000.0, 1001.0, 998.0]), 0),
            "Only differences count: 0, 1 and -2 would give the same shares.",
        ),
        (
            "masked places",
            (np.array([[2.0, MASK, 1.0], [MASK, MASK, MASK]]), -1),
            "Nothing is left in the second row: zeros.",
        ),
    ]


def hidden():
    return [
        ("far below zero", (np.array([-1000.0, -1002.0, -999.5]), 0)),
        ("rows far apart", (np.array([[0.0, 1.0], [5000.0, 5002.0], [-4000.0, -4001.0]]), 1)),
        ("first axis", (np.array([[1.0, 5.0], [2.0, -3.0], [0.5, 4.0]]), 0)),
        ("negative axis", (np.array([[0.5, 2.0, 1.0], [3.0, 1.0, -1.0]]), -2)),
        ("three axes", (np.arange(24.0).reshape(2, 3, 4) % 5, 1)),
        ("masked beside large", (np.array([800.0, MASK, 801.0, MASK]), 0)),
        ("masked column", (np.array([[1.0, MASK], [2.0, MASK]]), 0)),
        ("one place", (np.array([[-1e6], [1e6]]), 1)),
        ("all masked", (np.array([MASK, MASK]), 0)),
        ("wide range", (np.array([-1e6, 0.0, 1e6, 1e6]), 0)),
    ]


def generate(rng, size):
    axes = int(rng.integers(1, 4))
    shape = tuple(int(n) for n in rng.integers(1, size + 2, axes)) if axes < 3 else (2, 3, size)
    logits = rng.normal(size=shape) * rng.choice([1.0, 20.0, 2000.0]) + rng.choice([0.0, 900.0, -900.0])
    logits[rng.random(shape) < rng.choice([0.0, 0.3])] = MASK
    return (logits, int(rng.integers(-axes, axes)))
