def fewest_stages(budget, widths):
    fewest = [0] + [float("inf")] * budget
    for width in widths:
        for bits in range(budget, width - 1, -1):
            fewest[bits] = min(fewest[bits], fewest[bits - width] + 1)
    return None if fewest[budget] == float("inf") else fewest[budget]
