def samples():
    return [
        (
            "two beat one",
            ([4, 3, 3], [10, 7, 7], 6),
            "The first has the best gain for a kilobyte, but leaves a hole of 2.",
        ),
        ("once only", ([2, 5], [6, 9], 6), "The first fits three times, but there is only one of it."),
    ]


def hidden():
    return [
        ("no layers", ([], [], 10)),
        ("no memory", ([1, 2], [5, 5], 0)),
        ("all fit", ([2, 3, 4], [1, 2, 3], 20)),
        ("none fits", ([8, 9], [50, 60], 7)),
        ("fits exactly", ([7], [3], 7)),
        ("one kilobyte short", ([8], [3], 7)),
        ("memory stays partly empty", ([5, 5], [4, 9], 9)),
        ("large gain does not pay", ([10, 6, 4], [12, 8, 7], 10)),
        ("no gain", ([1, 2], [0, 0], 3)),
        ("equal layers", ([3, 3, 3], [4, 4, 4], 8)),
    ]


def generate(rng, size):
    sizes = [rng.randint(1, 12) for _ in range(size)]
    gains = [rng.randint(0, 30) for _ in range(size)]
    return (sizes, gains, rng.randint(0, 4 * size + 4))


def grow(n):
    sizes = [n // 20 + 3 * i % 11 for i in range(40)]
    gains = [50 + 7 * i % 13 for i in range(40)]
    return (sizes, gains, n)
