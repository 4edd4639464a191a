def samples():
    return [
        ("four numbers", ([5, 2, 3, 4],), "The first place gets 2 * 3 * 4, the last 5 * 2 * 3."),
        ("a negative one", ([-2, 7, 1, -3, 2],), "Two factors of the five are negative, and each is left out once."),
        ("one zero", ([4, 0, -2],), "Only the place of the zero has a product without it."),
    ]


def hidden():
    return [
        ("one number", ([9],)),
        ("two numbers", ([6, -5],)),
        ("two zeros", ([0, 3, 0, 5],)),
        ("only zeros", ([0, 0, 0],)),
        ("a single zero", ([0],)),
        ("zero at the front", ([0, 2, 3, 7],)),
        ("zero at the end", ([8, 2, -3, 0],)),
        ("all ones", ([1, 1, 1, 1, 1],)),
        ("equal numbers", ([3, 3, 3],)),
        ("large products", ([2] * 51 + [-1],)),
    ]


def generate(rng, size):
    largest = 9 if size < 12 else 2
    numbers = [rng.choice((-1, 1)) * rng.randint(1, largest) for _ in range(size + 1)]
    for _ in range(rng.choice((0, 0, 1, 2))):
        numbers[rng.randrange(len(numbers))] = 0
    return (numbers,)


def grow(n):
    return ([-1 if i % 3 == 0 else 1 for i in range(n)],)
