import numpy as np


def samples():
    return [
        ("both signs", (np.array([-1.0, 0.5, 3.0]),), "z = rint(1 / (4 / 255)) = rint(63.75) = 64"),
        ("all positive", (np.array([2.0, 2.5, 3.0]),), "The range is [0, 3]: it must contain zero."),
        ("zeros only", (np.zeros(3),), "There is no width to divide by."),
    ]


def hidden():
    return [
        ("all negative", (np.array([-0.7, -0.2, -0.4]),)),
        ("constant and positive", (np.full(4, 1.7),)),
        ("constant and negative", (np.full(4, -2.3),)),
        ("one value", (np.array([0.3]),)),
        ("one zero", (np.array([0.0]),)),
        ("zero at one end", (np.array([0.0, 5.1, 2.2]),)),
        ("tiny values", (np.array([-2e-6, 5e-6]),)),
        ("an outlier", (np.array([-0.1, 0.2, 900000.0]),)),
        ("lopsided", (np.array([-5.0, 0.1, 0.33]),)),
    ]


def generate(rng, size):
    while True:
        x = rng.normal(rng.choice([-4.0, -1.0, 0.0, 1.0, 4.0]), 1.0, size + 1) * 10.0 ** rng.integers(-3, 4)
        x = np.where(np.abs(x) < 1e-6, 0.0, x)
        low, high = min(0.0, x.min()), max(0.0, x.max())
        place = -low / max(high - low, 1e-9) * 255
        if high > low and abs(place % 1 - 0.5) > 1e-4:
            return (x,)
