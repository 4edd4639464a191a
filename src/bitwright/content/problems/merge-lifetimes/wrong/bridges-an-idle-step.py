def busy_periods(lifetimes):
    periods = []
    for start, end in sorted(lifetimes):
        if periods and start <= periods[-1][1] + 1:
            periods[-1][1] = max(periods[-1][1], end)
        else:
            periods.append([start, end])
    return periods
