def best_gain(sizes, gains, capacity):
    best = [0] * (capacity + 1)
    for size, gain in zip(sizes, gains, strict=True):
        for room in range(size, capacity + 1):
            best[room] = max(best[room], best[room - size] + gain)
    return best[capacity]
