def largest_run(gains):
    best = max(gains)
    total = 0
    for gain in gains:
        total = total + gain if gain > 0 else 0
        best = max(best, total or gain)
    return best
