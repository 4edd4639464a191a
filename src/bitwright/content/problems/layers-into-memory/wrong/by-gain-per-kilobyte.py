def best_gain(sizes, gains, capacity):
    total = 0
    for size, gain in sorted(zip(sizes, gains, strict=True), key=lambda layer: layer[1] / layer[0], reverse=True):
        if size <= capacity:
            capacity -= size
            total += gain
    return total
