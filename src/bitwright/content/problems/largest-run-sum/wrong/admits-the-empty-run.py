def largest_run(gains):
    best = ending = 0
    for gain in gains:
        ending = max(ending + gain, 0)
        best = max(best, ending)
    return best
