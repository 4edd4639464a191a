import numpy as np

BANNED = -np.inf


def logs(*shares):
    """Logits with these shares at temperature one."""
    return np.log(np.array(shares))


def samples():
    return [
        (
            "temperature alone",
            (logs(0.64, 0.36), 0.5, 0, 1.0),
            "Half the temperature squares the shares, up to their sum.",
        ),
        (
            "top-k",
            (logs(0.1, 0.5, 0.2, 0.2), 1.0, 2, 1.0),
            "Two tokens tie for the second place: the lower index is kept.",
        ),
        ("top-p", (logs(0.15, 0.5, 0.05, 0.3), 1.0, 0, 0.7), "0.5 is not enough; the token that passes 0.7 is kept."),
        (
            "both",
            (logs(0.4, 0.3, 0.2, 0.1), 1.0, 2, 0.55),
            "After top-k the first share is 4 / 7, already enough. Of all four tokens it would have taken two.",
        ),
    ]


def hidden():
    steps = np.arange(6.0)
    return [
        ("greedy", (np.array([1.0, 3.0, 3.0, 2.0]), 0.0, 0, 1.0)),
        ("greedy beats the filters", (np.array([0.5, 0.1, 0.9]), 0.0, 2, 0.9)),
        ("top-p zero", (steps, 1.0, 0, 0.0)),
        ("top-k beyond the vocabulary", (steps, 2.0, 50, 1.0)),
        ("top-k one", (steps, 1.5, 1, 0.9)),
        ("all equal", (np.zeros(5), 1.0, 0, 0.5)),
        ("equal at the bound", (np.array([2.0, 1.0, 1.0, 1.0, 0.0]), 1.0, 3, 1.0)),
        ("banned tokens", (np.array([BANNED, 1.0, BANNED, 0.0]), 1.0, 3, 1.0)),
        ("one token left", (np.array([BANNED, -5.0, BANNED]), 0.7, 0, 0.5)),
        ("large logits", (np.array([9000.0, 9001.0, -9000.0, 8999.0]), 0.5, 0, 0.95)),
        ("hot", (steps, 100.0, 0, 0.45)),
        ("cold", (steps, 0.01, 0, 0.99)),
        ("hot with top-p", (logs(0.6, 0.2, 0.1, 0.1), 2.0, 0, 0.5)),
        ("both filters", (logs(0.3, 0.25, 0.2, 0.15, 0.1), 1.0, 3, 0.7)),
        ("one entry", (np.array([-3.0]), 1.0, 0, 0.3)),
    ]


def generate(rng, size):
    logits = rng.permutation(np.arange(size + 2) * 0.25 + rng.uniform(0.0, 0.2, size + 2))
    temperature = float(rng.choice([0.0, 0.5, 1.0, 1.5, 2.0], p=[0.1, 0.25, 0.25, 0.2, 0.2]))
    top_k = int(rng.choice([0, rng.integers(1, size + 3)]))
    if rng.random() < 0.2:
        return (logits, temperature, top_k, 1.0)
    powers = np.exp((np.sort(logits)[::-1][: top_k or None] - logits.max()) / (temperature or 1.0))
    shares = powers / powers.sum()
    last = int(rng.integers(0, np.count_nonzero(shares > 1e-3)))
    top_p = shares[:last].sum() + rng.uniform(0.2, 0.8) * shares[last]  # well between two running sums
    return (logits, temperature, top_k, float(top_p))


def grow(n):
    return (np.random.default_rng(n).uniform(0.0, 1.0, n), 1.0, 0, 0.9)
