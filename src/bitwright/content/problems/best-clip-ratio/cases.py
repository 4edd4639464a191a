import numpy as np


def samples():
    return [
        (
            "one outlier",
            (np.array([0.11, -0.19, 0.32, 0.28, -0.41, 1.0]), 3, np.array([1.0, 0.8, 0.6, 0.4])),
            "At ratio 1 the step is a third of the outlier, and the small values fall on 0 or 1/3.",
        ),
        (
            "nothing to clip",
            (np.array([-0.9, 0.62, 0.31, -0.58, 0.88]), 3, np.array([0.5, 0.75, 1.0])),
            "All values are large: clipping costs more than a finer step gains.",
        ),
    ]


def hidden():
    ramp = np.sin(np.arange(40.0)) ** 3
    return [
        ("zeros only", (np.zeros(4), 4, np.array([0.7, 1.0, 0.5]))),
        ("one ratio", (ramp, 4, np.array([0.35]))),
        ("ratios in no order", (ramp, 3, np.array([0.55, 0.95, 0.45, 1.0, 0.75]))),
        ("the same ratio twice", (ramp, 4, np.array([0.6, 0.9, 0.9, 0.6]))),
        ("three levels", (ramp, 2, np.linspace(0.3, 1.0, 8))),
        ("eight bits", (ramp, 8, np.linspace(0.5, 1.0, 11))),
        ("outlier on the negative side", (np.append(ramp / 5, -1.0), 4, np.array([1.0, 0.8, 0.6, 0.4, 0.2]))),
        ("a very far outlier", (np.append(ramp, 1000.0), 4, np.array([0.001, 0.01, 0.1, 1.0]))),
        ("absolute errors would choose another", (np.append(ramp / 4, [1.0, 0.9]), 3, np.linspace(0.2, 1.0, 9))),
        ("one value", (np.array([-0.37]), 4, np.array([0.5, 1.0, 0.9]))),
    ]


def generate(rng, size):
    while True:
        bits = int(rng.integers(2, 7))
        x = rng.standard_t(3, size + 4) * 10.0 ** rng.uniform(-2, 2)
        ratios = rng.permutation(np.linspace(0.25, 1.0, int(rng.integers(3, 12))))
        if _clear(x, bits, ratios):
            return x, bits, ratios


def _clear(x, bits, ratios):
    """No rounding ties, and one smallest error."""
    top = 2 ** (bits - 1) - 1
    steps = x / (ratios[:, None] * np.abs(x).max() / top)
    codes = np.clip(np.rint(steps), -top, top)
    ties = (np.abs(steps % 1 - 0.5) < 1e-6) & (np.abs(steps) < top)
    errors = np.sort(((steps - codes) ** 2 * ratios[:, None] ** 2).mean(axis=1))
    return not ties.any() and errors[1] > errors[0] * (1 + 1e-4)
