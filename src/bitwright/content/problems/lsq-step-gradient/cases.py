import numpy as np


def samples():
    return [
        (
            "inside and clipped",
            (np.array([0.6, -0.2, 5.0, -9.0]), np.array([1.0, 1.0, 1.0, 1.0]), 0.5, 4, 3),
            "u = 1.2, -0.4, 10, -18: the slopes are -0.2, 0.4, 3 and -4. Their sum is divided by sqrt(4 * 3).",
        ),
        (
            "exactly at the end",
            (np.array([1.5, 1.25]), np.array([2.0, -1.0]), 0.5, 4, 3),
            "u = 3 is clipped: slope 3, and nothing passes to v. u = 2.5 rounds to the even 2.",
        ),
    ]


def hidden():
    wave = 3 * np.sin(np.arange(24.0))
    push = np.cos(np.arange(24.0) * 1.7)
    return [
        ("lower end exactly", (np.array([-2.0, -1.9]), np.array([1.0, 3.0]), 0.5, 4, 3)),
        ("unsigned", (np.array([0.3, 0.9, 4.0, -1.0]), np.array([1.0, -2.0, 0.5, 4.0]), 0.25, 0, 15)),
        ("unsigned zero", (np.array([0.0, 0.1]), np.array([5.0, 1.0]), 0.25, 0, 15)),
        ("all clipped", (np.array([9.0, -9.0, 8.0]), np.array([0.5, 1.0, 2.0]), 0.1, 8, 7)),
        ("on the codes", (np.array([0.5, -0.25, 0.0]), np.array([3.0, 1.0, -2.0]), 0.25, 8, 7)),
        ("a matrix", (wave.reshape(4, 6), push.reshape(4, 6), 0.37, 8, 7)),
        ("three axes", (wave.reshape(2, 3, 4), push.reshape(2, 3, 4), 1.3, 2, 1)),
        ("no gradient from above", (wave, np.zeros(24), 0.2, 4, 3)),
        ("one element", (np.array([0.7]), np.array([2.0]), 0.3, 8, 7)),
        ("a large step", (wave, push, 50.0, 8, 7)),
    ]


def generate(rng, size):
    bits = int(rng.integers(2, 9))
    qn, qp = (0, 2**bits - 1) if rng.random() < 0.3 else (2 ** (bits - 1), 2 ** (bits - 1) - 1)
    step = float(10.0 ** rng.uniform(-2, 1))
    while True:
        v = step * rng.uniform(-1.3 * qn - 1, 1.3 * qp + 1, (1 + size % 4, size + 1))
        u = v / step
        far = (np.abs(u % 1 - 0.5) > 1e-6) & (np.abs(u + qn) > 1e-6) & (np.abs(u - qp) > 1e-6)
        if far.all():
            return v, rng.normal(0, 1, v.shape), step, qn, qp
