def best_gain(sizes: list[int], gains: list[int], capacity: int) -> int:
    """The largest sum of gains of layers that fit together; one row of capacities, each layer admitted from above."""
    best = [0] * (capacity + 1)
    for size, gain in zip(sizes, gains, strict=True):
        for room in range(capacity, size - 1, -1):
            taken = best[room - size] + gain
            if taken > best[room]:
                best[room] = taken
    return best[capacity]
