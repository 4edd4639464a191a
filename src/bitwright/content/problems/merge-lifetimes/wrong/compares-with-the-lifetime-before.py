def busy_periods(lifetimes):
    ordered = sorted(lifetimes)
    periods = []
    for i, (start, end) in enumerate(ordered):
        if i and start <= ordered[i - 1][1]:
            periods[-1][1] = max(periods[-1][1], end)
        else:
            periods.append([start, end])
    return periods
