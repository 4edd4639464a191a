def busy_periods(lifetimes):
    periods = []
    for start, end in lifetimes:
        apart = []
        for other in periods:
            if other[0] <= end and start <= other[1]:
                start, end = min(start, other[0]), max(end, other[1])
            else:
                apart.append(other)
        periods = [*apart, [start, end]]
    return sorted(periods)
