def samples():
    return [
        ("adapter and vector", ([64, 4, 64, 1],), "From the right: 4 * 64 * 1 and 64 * 4 * 1."),
        ("four matrices", ([5, 20, 3, 12, 8],)),
    ]


def hidden():
    return [
        ("one matrix", ([7, 9],)),
        ("two matrices", ([3, 5, 2],)),
        ("thin end left", ([1, 30, 30, 30],)),
        ("thin end right", ([30, 30, 30, 1],)),
        ("all square", ([6, 6, 6, 6, 6],)),
        ("thin in the middle", ([20, 30, 2, 30, 20],)),
        ("cheapest first is a trap", ([5, 4, 4, 1, 40],)),
        ("all ones", ([1, 1, 1, 1],)),
        ("two thin places", ([40, 3, 50, 2, 60, 40],)),
        ("thin rises to wide", ([1, 2, 4, 8, 16],)),
        ("a long chain", ([8, 3, 9, 2, 7, 4, 6, 5, 9, 3, 8, 2, 7, 6, 4, 5, 3, 9, 2, 8, 6, 7, 3, 5],)),
    ]


def generate(rng, size):
    largest = rng.choice((4, 12, 60))
    return ([rng.randint(1, largest) for _ in range(size + 1)],)


def grow(n):
    return ([2 + 17 * i % 29 for i in range(n + 1)],)
