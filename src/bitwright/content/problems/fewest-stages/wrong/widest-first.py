def fewest_stages(budget, widths):
    stages = 0
    for width in sorted(widths, reverse=True):
        stages += budget // width
        budget %= width
    return None if budget else stages
