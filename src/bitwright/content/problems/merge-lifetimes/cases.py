def samples():
    return [
        ("two periods", ([[6, 9], [0, 2], [1, 4]],), "Steps 4 and 5 are idle."),
        ("touching", ([[1, 3], [3, 5]],), "The first ends where the second starts: no idle step."),
        ("one inside another", ([[2, 8], [3, 4], [9, 11]],), "The short one changes nothing. Step 8 is idle."),
    ]


def hidden():
    return [
        ("no lifetimes", ([],)),
        ("one lifetime", ([[3, 7]],)),
        ("equal lifetimes", ([[2, 5], [2, 5], [2, 5]],)),
        ("same start", ([[1, 6], [1, 2], [1, 4]],)),
        ("same end", ([[5, 9], [1, 9], [8, 9]],)),
        ("backwards", ([[9, 10], [6, 8], [3, 5], [0, 2]],)),
        ("one over all", ([[1, 2], [4, 5], [0, 20], [7, 9]],)),
        ("a chain", ([[4, 6], [0, 2], [2, 4], [6, 8]],)),
        ("long then short ones", ([[0, 10], [1, 2], [3, 4], [5, 12]],)),
        ("one idle step", ([[0, 4], [5, 6]],)),
    ]


def generate(rng, size):
    lifetimes = []
    for _ in range(size):
        start = rng.randint(0, 4 * size)
        lifetimes.append([start, start + rng.choice((1, 2, 3, 2 * size))])
    return (lifetimes,)


def grow(n):
    starts = [*range(0, 3 * n, 6), *range(3, 3 * n, 6)]
    return ([[start, start + 2] for start in starts],)
