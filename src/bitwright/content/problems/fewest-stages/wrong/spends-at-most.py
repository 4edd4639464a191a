def fewest_stages(budget, widths):
    fewest = [0] * (budget + 1)
    for bits in range(1, budget + 1):
        fitting = [fewest[bits - width] + 1 for width in widths if width <= bits]
        fewest[bits] = min(fitting, default=0)
    return fewest[budget] or None
