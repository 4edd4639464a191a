def samples():
    return [
        ("a loss worth taking", ([3, -5, 6, -2, 4, -9, 2],), "6 - 2 + 4: the small loss joins two gains."),
        ("all losses", ([-4, -2, -7],), "A run is never empty, so the smallest loss it is."),
    ]


def hidden():
    return [
        ("one gain", ([7],)),
        ("one loss", ([-7],)),
        ("all gains", ([1, 2, 3, 4],)),
        ("best at the end", ([5, -9, 2, 3, 4],)),
        ("best at the start", ([4, 3, -9, 2, 1],)),
        ("zero among losses", ([-3, 0, -1],)),
        ("only zeros", ([0, 0, 0],)),
        ("a deep dip", ([10, -11, 10],)),
        ("a shallow dip", ([10, -9, 10],)),
        ("large values", ([10**6, -(10**6), 10**6, 10**6, -1],)),
    ]


def generate(rng, size):
    low = rng.choice((-9, -9, -9, -20))
    high = rng.choice((9, 9, 9, -1))
    return ([rng.randint(low, high) for _ in range(size)],)


def grow(n):
    return ([(7 * i) % 19 - 9 for i in range(n)],)
