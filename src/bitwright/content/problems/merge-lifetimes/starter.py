def busy_periods(lifetimes: list[list[int]]) -> list[list[int]]:
    """The periods in which at least one tensor lives, merged and sorted."""
    raise NotImplementedError
