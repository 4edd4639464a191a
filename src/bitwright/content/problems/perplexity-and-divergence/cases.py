import numpy as np


def logs(*rows):
    return np.log(np.array([rows]))


def mask(*rows):
    return np.array([[letter == "x" for letter in row] for row in rows])


def texts(rng, sequences, tokens, vocabulary, scale=2.0, noise=0.5):
    reference = rng.normal(size=(sequences, tokens, vocabulary)) * scale
    model = reference + rng.normal(size=reference.shape) * noise
    return (reference, model, rng.integers(0, vocabulary, (sequences, tokens)))


def samples():
    reference = logs([0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [0.5, 0.25, 0.25])
    model = logs([0.25, 0.5, 0.25], [0.25, 0.25, 0.5], [0.25, 0.25, 0.5])
    return [
        (
            "three tokens",
            (reference, model, np.array([[0, 1, 2]]), mask("xxx")),
            "Two places count. The model gives one half to each token that follows: one bit. Both agree at the second.",
        ),
        (
            "padding in front",
            (reference, model, np.array([[0, 1, 0]]), mask(".xx")),
            "Only the middle place counts: it gives one quarter to what follows, and both models agree there.",
        ),
    ]


def hidden():
    rng = np.random.default_rng(21)
    far = np.array([[[1000.0, 0.0, -1000.0], [-2000.0, -2010.0, -2005.0], [0.0, 0.0, 0.0]]])
    near = np.array([[[1000.0, 990.0, -1000.0], [-2000.0, -2012.0, -2001.0], [0.0, 0.0, 0.0]]])
    return [
        ("same model", (*texts(rng, 2, 4, 5, noise=0.0), mask("xxxx", "xxxx"))),
        ("padding behind", (*texts(rng, 2, 5, 4), mask("xxxxx", "xxx.."))),
        ("padding on both sides", (*texts(rng, 2, 6, 4), mask("..xxx.", ".xxxxx"))),
        ("sequence of padding", (*texts(rng, 3, 3, 4), mask("xxx", "...", "xxx"))),
        ("single real token", (*texts(rng, 2, 4, 3), mask("...x", "xxxx"))),
        ("lengths differ", (*texts(rng, 2, 8, 6), mask("xxxxxxxx", "xx......"))),
        ("one place counts", (*texts(rng, 1, 2, 3), mask("xx"))),
        ("large logits", (far, near, np.array([[0, 0, 2]]), mask("xxx"))),
        ("two tokens in the vocabulary", (*texts(rng, 1, 6, 2), mask("xxxxxx"))),
    ]


def generate(rng, size):
    sequences, tokens, vocabulary = (
        int(rng.integers(1, 4)),
        int(rng.integers(2, size + 4)),
        int(rng.integers(2, size + 3)),
    )
    start = rng.integers(0, 2, (sequences, 1))
    end = rng.integers(2, tokens + 1, (sequences, 1))
    start[0], end[0] = 0, tokens
    place = np.arange(tokens)
    return (*texts(rng, sequences, tokens, vocabulary), (place >= start) & (place < end))
