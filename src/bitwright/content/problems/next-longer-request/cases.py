def samples():
    return [
        ("a mixed queue", ([30, 12, 12, 25, 40],), "Neither 12 is longer than the other: both wait for 25."),
        ("ever shorter", ([9, 5, 2],), "No request is followed by a longer one."),
    ]


def hidden():
    return [
        ("no requests", ([],)),
        ("one request", ([5],)),
        ("ever longer", ([1, 4, 6, 9],)),
        ("all equal", ([7, 7, 7],)),
        ("one answers many", ([6, 5, 4, 3, 9],)),
        ("longer after two equal", ([3, 3, 8, 8, 9],)),
        ("answers from both sides", ([2, 8, 1, 5, 4, 9],)),
        ("longest first", ([9, 1, 2, 3, 4],)),
        ("nearest, not largest", ([2, 3, 90, 4],)),
        ("zeros", ([0, 0, 1, 0],)),
    ]


def generate(rng, size):
    largest = rng.choice((3, 2 * size + 1, 1000))
    return ([rng.randint(0, largest) for _ in range(size)],)


def grow(n):
    return (list(range(n, 0, -1)),)
