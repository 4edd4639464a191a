import numpy as np


def _case(sizes, bits, errors, budget):
    return np.array(sizes), np.array(bits), np.array(errors, dtype=np.float64), budget


def samples():
    return [
        (
            "greed leaves a gap",
            _case([3, 2, 2], [2, 4], [[11.0, 1.0], [8.0, 2.0], [9.0, 2.5]], 22),
            "Two bits for all take 14, so 8 are left. The first layer gains most for each bit but takes 6 of them; "
            "the other two together take 8 and gain 12.5.",
        ),
        ("too small a budget", _case([4, 1], [2, 3], [[1.0, 0.5], [1.0, 0.2]], 9), "Two bits for all take 10."),
    ]


def hidden():
    rng = np.random.default_rng(14)
    sizes = rng.integers(1, 6, 24)
    falling = rng.uniform(1, 9, (24, 1)) * 4.0 ** -np.array([2, 3, 4, 5, 6, 8]) * rng.uniform(0.8, 1.2, (24, 6))
    return [
        ("one layer", _case([5], [2, 4, 8], [[4.0, 1.0, 0.1]], 39)),
        ("one choice", _case([2, 3], [4], [[1.0], [2.0]], 20)),
        ("exactly the budget", _case([2, 3], [2, 4], [[3.0, 1.0], [4.0, 1.5]], 16)),
        ("everything fits", _case([1, 2, 3], [2, 8], [[3.0, 1.0], [2.0, 0.5], [4.0, 0.1]], 1000)),
        ("more bits, more error", _case([2, 1], [2, 3, 4], [[1.0, 1.5, 0.9], [0.4, 0.7, 0.8]], 30)),
        ("no budget", _case([1], [1], [[1.0]], 0)),
        ("one large layer", _case([50, 1, 1], [2, 4], [[9.0, 8.5], [3.0, 1.0], [2.0, 0.6]], 110)),
        ("bits that nothing can use", _case([3, 3], [2, 5], [[2.0, 1.0], [2.5, 1.2]], 20)),
        ("a poor raise before a good one", _case([1, 1], [2, 3, 4], [[5.0, 4.9, 0.1], [5.0, 4.0, 3.5]], 6)),
        ("many layers", (sizes, np.array([2, 3, 4, 5, 6, 8]), falling, int(4 * sizes.sum() + 1))),
        ("many layers, tight", (sizes, np.array([2, 3, 4, 5, 6, 8]), falling, int(2 * sizes.sum() + 7))),
    ]


def generate(rng, size):
    layers, bits = size + 1, np.array([2, 3, 4, 8])
    sizes = rng.integers(1, 8, layers)
    errors = rng.uniform(0.5, 20, (layers, 1)) * 4.0**-bits * rng.uniform(0.5, 1.5, (layers, 4))
    low, high = 2 * int(sizes.sum()), 6 * int(sizes.sum())
    return sizes, bits, errors, int(rng.integers(low, high + 1))


def grow(n):
    rng = np.random.default_rng(n)
    sizes = np.tile([1, 2, 3, 4], n // 4)
    errors = rng.uniform(0.5, 20, (n, 1)) * 4.0 ** -np.array([2, 3, 4, 8]) * rng.uniform(0.5, 1.5, (n, 4))
    return sizes, np.array([2, 3, 4, 8]), errors, 4 * int(sizes.sum())
