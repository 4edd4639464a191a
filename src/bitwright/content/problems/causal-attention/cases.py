import numpy as np

Q = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
K = np.array([[1.0, 1.0], [0.0, 3.0], [2.0, -1.0]])
V = np.array([[10.0, 0.0], [0.0, 10.0], [5.0, 5.0]])


def mask(text):
    return np.array([letter == "x" for letter in text])


def samples():
    return [
        ("three tokens", (Q, K, V, mask("xxx")), "The first token sees only itself: its row is its own value."),
        (
            "padding in front",
            (Q, K, V, mask(".xx")),
            "The first token may see nothing: zeros. The second sees itself alone.",
        ),
    ]


def hidden():
    rng = np.random.default_rng(5)
    q, k = rng.normal(size=(2, 5, 4))
    v = rng.normal(size=(5, 3))
    return [
        ("one token", (q[:1], k[:1], v[:1], mask("x"))),
        ("one token, padded", (q[:1], k[:1], v[:1], mask("."))),
        ("padding behind", (q, k, v, mask("xxx.."))),
        ("padding between", (q, k, v, mask("x.x.x"))),
        ("padding everywhere", (q, k, v, mask("....."))),
        ("large scores", (100 * q, 100 * k, v, mask("xxxxx"))),
        ("scores far below zero", (100 * np.abs(q), -100 * np.abs(k), v, mask(".xxxx"))),
        ("one feature", (q[:, :1], k[:, :1], v, mask("xxxxx"))),
        ("long queries", (np.ones((3, 64)), np.arange(3.0)[:, None] * np.full((3, 64), 0.1), V, mask("xxx"))),
    ]


def generate(rng, size):
    tokens, dim, value_dim = (int(n) for n in rng.integers(1, size + 2, 3))
    q, k = rng.normal(size=(2, tokens, dim)) * rng.choice([0.5, 1.0, 10.0])
    keep = rng.random(tokens) < rng.choice([0.6, 1.0])
    return (q, k, rng.normal(size=(tokens, value_dim)), keep)
