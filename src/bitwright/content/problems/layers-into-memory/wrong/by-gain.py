def best_gain(sizes, gains, capacity):
    total = 0
    for gain, size in sorted(zip(gains, sizes, strict=True), reverse=True):
        if size <= capacity:
            capacity -= size
            total += gain
    return total
