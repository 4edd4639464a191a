def largest_run(gains):
    best = gains[0]
    for start in range(len(gains)):
        total = 0
        for gain in gains[start:]:
            total += gain
            if total > best:
                best = total
    return best
