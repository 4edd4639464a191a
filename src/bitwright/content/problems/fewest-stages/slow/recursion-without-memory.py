def fewest_stages(budget, widths):
    if budget == 0:
        return 0
    best = None
    for width in widths:
        if width <= budget:
            before = fewest_stages(budget - width, widths)
            if before is not None and (best is None or before + 1 < best):
                best = before + 1
    return best
