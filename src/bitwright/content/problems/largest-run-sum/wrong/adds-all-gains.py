def largest_run(gains):
    total = sum(gain for gain in gains if gain > 0)
    return total or max(gains)
