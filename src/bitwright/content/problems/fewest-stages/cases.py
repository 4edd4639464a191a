def samples():
    return [
        ("not the widest first", (6, [1, 3, 4]), "Two stages of 3 bits. Beginning with 4 takes three stages."),
        ("out of reach", (7, [4, 6]), "Even widths never add up to an odd budget."),
    ]


def hidden():
    return [
        ("no bits", (0, [2, 3])),
        ("one stage", (5, [2, 5])),
        ("one width fits", (12, [4])),
        ("one width does not fit", (13, [4])),
        ("all too wide", (3, [5, 8])),
        ("greedy gets stuck", (8, [3, 4, 5, 7])),
        ("greedy finds nothing", (9, [3, 5])),
        ("many of one", (10, [1, 25])),
        ("widest last", (30, [1, 10, 25])),
        ("a gap below", (11, [6, 7, 5])),
        ("many ways", (150, [2, 3, 5, 7])),
    ]


def generate(rng, size):
    widths = rng.sample(range(1, 10), rng.randint(1, 4))
    return (rng.randint(0, 2 * size + 8), widths)


def grow(n):
    step = n // 50
    return (n, [step + 7 * i + i * i for i in range(8)])
