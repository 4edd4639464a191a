def samples():
    return [
        ("a peak passes", ([4, 9, 2, 5, 3, 1], 3), "9 is the peak as long as the window holds it, then 5 takes over."),
        ("width one", ([3, -1, 2], 1), "Every value is a window of its own."),
    ]


def hidden():
    return [
        ("one value", ([6], 1)),
        ("one whole window", ([2, 8, 5], 3)),
        ("all negative", ([-5, -2, -9, -4], 2)),
        ("all equal", ([7, 7, 7, 7], 2)),
        ("equal peaks", ([9, 1, 9, 1, 0, 0], 3)),
        ("two equal peaks in a row", ([5, 5, 1, 1, 1], 2)),
        ("rising", ([1, 2, 3, 4, 5], 3)),
        ("falling", ([9, 7, 5, 3, 1], 3)),
        ("several take over", ([9, 6, 5, 7, 1, 1, 0], 4)),
        ("small ones first", ([1, 3, 2, 5, 8, 7], 2)),
    ]


def generate(rng, size):
    largest = rng.choice((2, 9, 100))
    values = [rng.randint(-largest, largest) for _ in range(size + 1)]
    return (values, rng.randint(1, min(len(values), 8)))


def grow(n):
    return (list(range(n, 0, -1)), n // 2)
