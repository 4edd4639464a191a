def fewest_stages(budget, widths):
    fewest = [0] + [budget + 1] * budget
    for bits in range(1, budget + 1):
        for width in widths:
            if width <= bits:
                fewest[bits] = min(fewest[bits], fewest[bits - width] + 1)
    return fewest[budget]
