def samples():
    return [
        ("three devices", ([4, 2, 7, 3, 5, 1], 3), "4 + 2, then 7, then 3 + 5 + 1."),
        ("one heavy layer", ([1, 1, 20, 1], 3), "No cut makes the heavy layer cheaper."),
    ]


def hidden():
    return [
        ("one layer", ([6], 1)),
        ("one device", ([3, 1, 4, 1, 5], 1)),
        ("a device for each layer", ([3, 1, 4, 1, 5], 5)),
        ("more devices than layers", ([2, 9], 7)),
        ("all free", ([0, 0, 0], 2)),
        ("free layers between", ([0, 5, 0, 5, 0], 2)),
        ("equal layers", ([4, 4, 4, 4, 4, 4, 4], 3)),
        ("order must stay", ([9, 8, 1, 1], 2)),
        ("heavy at the end", ([1, 2, 3, 4, 30], 2)),
        ("just above the average", ([5, 5, 4, 5, 5], 2)),
        ("the rest piles up", ([5, 4, 4, 4, 5], 3)),
        ("fewer stages are enough", ([50, 1, 1, 1], 3)),
    ]


def generate(rng, size):
    costs = [rng.randint(0, 12) for _ in range(size + 1)]
    if rng.random() < 0.4:
        costs[rng.randrange(len(costs))] = rng.randint(20, 40)
    return (costs, rng.randint(1, max(2, len(costs) // 2)))


def grow(n):
    return ([1 + 5 * i % 9 for i in range(n)], 8)
