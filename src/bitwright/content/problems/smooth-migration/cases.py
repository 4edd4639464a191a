import numpy as np


def samples():
    return [
        (
            "one loud channel",
            (np.array([[1.0, -50.0], [-2.0, 32.0]]), np.array([[0.5, 0.02], [-0.25, 0.08], [0.1, 0.05]]), 0.5),
            "Channel 1: s = sqrt(50 / 0.08) = 25. Its peaks become 2 and 2.",
        ),
        (
            "a dead channel",
            (np.array([[0.0, 4.0], [0.0, -9.0]]), np.array([[3.0, 1.0], [1.0, -0.25]]), 0.5),
            "Channel 0 never fires: nothing is moved, s = 1.",
        ),
    ]


def hidden():
    x = np.sin(np.arange(12.0)).reshape(4, 3) * np.array([1.0, 80.0, 0.1])
    w = np.cos(np.arange(6.0)).reshape(2, 3)
    square = np.array([[1.0, 20.0, 3.0], [-4.0, 5.0, 0.6], [0.7, -8.0, 90.0]])
    return [
        ("all into the weights", (x, w, 1.0)),
        ("all into the activation", (x, w, 0.0)),
        ("three quarters", (x, w, 0.75)),
        ("square matrices", (square, square.T / 50, 0.4)),
        ("weights all zero in a channel", (x, w * np.array([1.0, 0.0, 1.0]), 0.5)),
        ("dead on both sides", (x * np.array([0.0, 1.0, 1.0]), w * np.array([0.0, 1.0, 1.0]), 0.5)),
        ("dead channel at the end of the scale", (x * np.array([1.0, 1.0, 0.0]), w, 0.0)),
        ("dead weights at the other end", (x, w * np.array([0.0, 1.0, 1.0]), 1.0)),
        ("everything zero", (np.zeros((2, 2)), np.zeros((3, 2)), 0.5)),
        ("negative peaks", (np.array([[-6.0, 0.5], [1.0, -0.7]]), np.array([[-0.9, 0.2], [0.1, -2.0]]), 0.5)),
        ("one of each", (np.array([[3.0]]), np.array([[-0.5]]), 0.3)),
    ]


def generate(rng, size):
    tokens, inputs, outputs = size + 1, 1 + size % 7, 1 + size % 5
    x = rng.normal(0, 1, (tokens, inputs)) * 10.0 ** rng.uniform(-1, 2, inputs)
    w = rng.normal(0, 0.3, (outputs, inputs))
    if rng.random() < 0.3:
        (x if rng.random() < 0.5 else w)[:, rng.integers(inputs)] = 0
    x, w = (np.where(np.abs(each) < 1e-6, 0.0, each) for each in (x, w))
    return x, w, float(rng.choice([0.25, 0.4, 0.5, 0.6, 0.8]))
