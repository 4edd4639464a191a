def best_gain(sizes, gains, capacity):
    best = [0] + [None] * capacity
    for size, gain in zip(sizes, gains, strict=True):
        for room in range(capacity, size - 1, -1):
            before = best[room - size]
            if before is not None:
                best[room] = max(best[room] or 0, before + gain)
    return best[capacity] or 0
