def fewest_stages(budget, widths):
    ways = [1] + [0] * budget
    for width in widths:
        for bits in range(width, budget + 1):
            ways[bits] += ways[bits - width]
    return ways[budget] or None
