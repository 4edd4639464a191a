import numpy as np


def samples():
    return [
        (
            "two clusters",
            (np.array([1.0, 2.0, 3.0, 10.0, 11.0]), np.array([0.0, 4.0]), 1),
            "Codes are 0 0 1 1 1 first, and the levels become 1.5 and 8. Against these, 3 has the code 0.",
        ),
        (
            "an empty cell",
            (np.array([0.1, 0.2, 0.9]), np.array([0.0, 0.5, 1.0, 7.0]), 3),
            "Nothing is near 0.5 or 7: both stay.",
        ),
    ]


def hidden():
    wave = np.sin(np.arange(60.0)) ** 3
    return [
        ("no rounds", (np.array([0.2, 0.8, 0.4]), np.array([0.0, 1.0]), 0)),
        ("one level", (wave, np.array([5.0]), 2)),
        ("between two levels", (np.array([1.0, 5.0, 0.0, 3.0]), np.array([0.0, 2.0, 8.0]), 0)),
        ("between two levels, then a round", (np.array([1.0, 9.0, -1.0]), np.array([0.0, 2.0, 8.0]), 1)),
        ("equal weights", (np.full(5, 0.3), np.array([0.0, 0.25, 1.0]), 4)),
        ("all beyond the levels", (np.array([5.0, 6.0, 9.0]), np.array([-2.0, -1.0]), 3)),
        ("empty at both ends", (wave, np.array([-9.0, -0.3, 0.4, 9.0]), 5)),
        ("until nothing moves", (wave, np.linspace(-1, 1, 8), 50)),
        ("as many levels as weights", (np.array([3.0, 1.0, 2.0]), np.array([0.9, 2.2, 2.7]), 2)),
        ("one weight", (np.array([0.7]), np.array([0.0]), 1)),
    ]


def generate(rng, size):
    while True:
        x = rng.normal(0, 1, size + 4)
        levels = np.sort(rng.uniform(-2.5, 2.5, int(rng.integers(1, 3 + size // 2))))
        rounds = int(rng.integers(1, 6))
        if _clear(x, levels, rounds):
            return x, levels, rounds


def _clear(x, levels, rounds):
    """No weight comes near the middle between its two nearest levels in any round."""
    if len(levels) == 1:
        return True
    for _ in range(rounds + 1):
        distance = np.abs(x[:, None] - levels)
        nearest = np.sort(distance, axis=1)
        if np.diff(levels).min() < 1e-4 or (nearest[:, 1] - nearest[:, 0]).min() < 1e-7:
            return False
        codes = distance.argmin(axis=1)
        levels = np.array([x[codes == k].mean() if np.any(codes == k) else levels[k] for k in range(len(levels))])
    return True


def grow(n):
    rng = np.random.default_rng(n)
    return rng.normal(0, 1, n), np.linspace(-3, 3, n // 32), 4
