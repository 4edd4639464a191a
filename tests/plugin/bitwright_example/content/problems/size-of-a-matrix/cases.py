def samples():
    return [("two rows", (2, 256, 4, 128), "A row takes 128 bytes of codes and two scales of 2 bytes.")]


def hidden():
    return [
        ("one weight", (1, 1, 1, 1)),
        ("padded codes", (3, 5, 3, 5)),
        ("a short group", (4, 100, 8, 64)),
        ("a wide group", (2, 16, 2, 128)),
    ]


def generate(rng, size):
    return rng.randint(1, size + 1), rng.randint(1, 40 * size + 1), rng.randint(1, 8), rng.randint(1, 64)
