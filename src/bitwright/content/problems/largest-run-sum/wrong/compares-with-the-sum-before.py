def largest_run(gains):
    best = ending = gains[0]
    for gain in gains[1:]:
        ending = gain if gain > ending else ending + gain
        best = max(best, ending)
    return best
