def samples():
    return [
        ("with detours", ([6, 2, 8, 3, 7, 5, 9],), "2, 3, 7, 9 or 2, 3, 5, 9."),
        ("equal scores", ([4, 4, 4],), "Equal is no rise."),
    ]


def hidden():
    return [
        ("no checkpoints", ([],)),
        ("one checkpoint", ([-3],)),
        ("always better", ([1, 2, 5, 8],)),
        ("always worse", ([9, 6, 4, 1],)),
        ("a high start is a trap", ([50, 1, 2, 3],)),
        ("a high end is a trap", ([1, 2, 90, 3, 4, 5],)),
        ("does not end at the last", ([1, 2, 3, 0],)),
        ("equal in the rise", ([1, 3, 3, 4],)),
        ("negative scores", ([-5, -9, -4, -8, -1],)),
        ("two rises, one after the other", ([7, 8, 9, 1, 2, 3, 4],)),
        ("a low score in between", ([5, 6, 7, 1, 8],)),
        ("zigzag", ([1, 9, 2, 8, 3, 7, 4, 6, 5],)),
    ]


def generate(rng, size):
    largest = rng.choice((4, size + 2, 1000))
    return ([rng.randint(-largest, largest) for _ in range(size)],)


def grow(n):
    return ([i ^ 1 for i in range(n)],)
