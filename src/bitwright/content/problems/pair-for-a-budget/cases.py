def samples():
    return [
        ("a pair", ([700, 120, 450, 380], 500), "120 and 380 stand at positions 1 and 3."),
        ("no pair", ([250, 900, 300], 500), "Twice 250 would fit, but there is only one of it."),
    ]


def hidden():
    return [
        ("empty list", ([], 8)),
        ("a single size", ([4], 8)),
        ("equal sizes", ([4, 9, 4], 8)),
        ("half appears once", ([4, 1, 6], 8)),
        ("half comes first", ([4, 7, 1], 8)),
        ("not sorted", ([9, 1, 7, 2, 5], 6)),
        ("two at the end", ([20, 30, 40, 3, 5], 8)),
        ("below the budget only", ([1, 2, 3], 100)),
        ("larger than the budget", ([11, 12, 13], 10)),
        ("several pairs", ([1, 7, 2, 6, 3, 5], 8)),
    ]


def generate(rng, size):
    sizes = [rng.randint(1, 3 * size + 3) for _ in range(size + 1)]
    if rng.random() < 0.6:
        budget = sum(rng.sample(sizes, 2))
    elif rng.random() < 0.5:
        budget = 2 * rng.choice(sizes)
    else:
        budget = rng.randint(2, 6 * size + 6)
    return (sizes, budget)


def grow(n):
    return ([2 * i + 2 for i in range(n)], 2 * n + 1)
