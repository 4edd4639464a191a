import numpy as np


def samples():
    return [
        (
            "unsigned byte",
            (np.array([-1.0, 0.0, 0.3, 2.0, 5.0]), 0.02, 50, 0, 255),
            "5.0 lies outside: its code stays at 255, which decodes to 4.1.",
        ),
        (
            "halves",
            (np.array([0.25, 0.75, 1.25, -0.25, -0.75]), 0.5, 3, -8, 7),
            "0.25 / 0.5 is half a step and rounds to the even 0; 0.75 / 0.5 rounds to the even 2.",
        ),
    ]


def hidden():
    return [
        ("both ends clip", (np.array([-9.0, -2.1, 0.0, 2.1, 9.0]), 0.5, 0, -4, 3)),
        ("zero point at the lower end", (np.array([-1.0, 0.0, 1.3, 40.0]), 0.25, 0, 0, 15)),
        ("zero point at the upper end", (np.array([-40.0, -1.3, 0.0, 1.0]), 0.25, 15, 0, 15)),
        ("halves with an odd zero point", (np.arange(-3.5, 4.0, 1.0) * 0.125, 0.125, 5, -128, 127)),
        ("far outside", (np.array([1e12, -1e12, 3.0]), 0.01, -7, -128, 127)),
        ("a step of one", (np.array([-3.0, -2.0, 0.0, 1.0, 2.0]), 1.0, 1, -2, 2)),
        ("one code only", (np.array([-1.0, 0.2, 1.0]), 0.3, 4, 4, 4)),
        ("one value", (np.array([0.123]), 0.05, 3, 0, 15)),
        ("sixteen bits", (np.array([-7.77, 0.111, 7.77]), 0.0003, 12, -32768, 32767)),
    ]


def generate(rng, size):
    bits = int(rng.integers(2, 9))
    low = int(rng.choice([0, -(2 ** (bits - 1))]))
    high = low + 2**bits - 1
    zero = int(rng.integers(low, high + 1))
    scale = float(10.0 ** rng.uniform(-3, 1))
    while True:
        x = scale * (rng.uniform(low - 2, high + 2, size + 2) - zero)
        if np.all(np.abs((x / scale) % 1 - 0.5) > 1e-6):
            return x, scale, zero, low, high
