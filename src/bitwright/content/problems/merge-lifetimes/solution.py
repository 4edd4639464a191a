def busy_periods(lifetimes: list[list[int]]) -> list[list[int]]:
    """The periods in which at least one tensor lives: by start, each lifetime joins the last period or opens one."""
    periods: list[list[int]] = []
    for start, end in sorted(lifetimes):
        if periods and start <= periods[-1][1]:
            periods[-1][1] = max(periods[-1][1], end)
        else:
            periods.append([start, end])
    return periods
