def smallest_bottleneck(costs: list[int], devices: int) -> int:
    """The smallest possible cost of the most expensive of at most `devices` stages."""
    raise NotImplementedError
