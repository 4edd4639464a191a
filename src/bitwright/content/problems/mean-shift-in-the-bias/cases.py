import numpy as np


def samples():
    w = np.array([[0.9, -0.4], [0.3, 1.2]])
    return [
        (
            "one text",
            (w, np.rint(w), np.array([0.5, 0.0]), np.array([[[1.0, 2.0], [3.0, 2.0]]]), np.array([[True, True]])),
            "E[x] = (2, 2). Rounding moves the first output by 0.1 * 2 + 0.4 * 2 = 1.0: the bias falls by as much.",
        ),
        (
            "padding",
            (
                w,
                np.rint(w),
                None,
                np.array([[[1.0, 1.0], [2.0, 0.0]], [[6.0, 2.0], [9.0, 9.0]]]),
                np.array([[True, True], [True, False]]),
            ),
            "Three real tokens: E[x] = (3, 1). The layer has no bias, so the old one is zero.",
        ),
    ]


def hidden():
    w = np.sin(np.arange(12.0)).reshape(3, 4)
    wq = np.rint(w * 3) / 3
    x = 1 + np.cos(np.arange(40.0)).reshape(2, 5, 4)
    every = np.ones((2, 5), dtype=bool)
    ragged = np.arange(5) < np.array([[5], [1]])
    square = np.array([[0.2, 0.7], [-0.4, 0.1]])
    return [
        ("all tokens real", (w, wq, np.array([0.1, -0.2, 0.3]), x, every)),
        ("texts of different lengths", (w, wq, np.array([0.1, -0.2, 0.3]), x, ragged)),
        ("no bias", (w, wq, None, x, ragged)),
        ("only padding", (w, wq, np.array([1.0, 2.0, 3.0]), x, np.zeros((2, 5), dtype=bool))),
        ("only padding and no bias", (w, wq, None, x, np.zeros((2, 5), dtype=bool))),
        ("padding at the left", (w, wq, np.zeros(3), x, ragged[:, ::-1].copy())),
        ("one text is all padding", (w, wq, np.zeros(3), x, every & np.array([[True], [False]]))),
        ("nothing was rounded", (w, w, np.array([0.1, -0.2, 0.3]), x, ragged)),
        ("square weights", (square, np.rint(square * 2) / 2, np.zeros(2), x[:, :, :2].copy(), ragged)),
        ("inputs with mean zero", (w, wq, np.ones(3), np.concatenate([x, -x]), np.ones((4, 5), dtype=bool))),
    ]


def generate(rng, size):
    outputs, inputs, texts, tokens = 1 + size % 6, 1 + size % 5, 1 + size % 4, size + 1
    w = rng.normal(0, 1, (outputs, inputs))
    wq = np.rint(w * 2) / 2
    bias = None if rng.random() < 0.2 else rng.normal(0, 1, outputs)
    x = np.maximum(rng.normal(0.5, 1, (texts, tokens, inputs)), 0)
    mask = np.arange(tokens) < rng.integers(1, tokens + 1, (texts, 1))
    x[~mask] = 7.0
    return w, wq, bias, x, mask
