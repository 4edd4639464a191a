def best_gain(sizes: list[int], gains: list[int], capacity: int) -> int:
    """The largest sum of gains of layers whose sizes add up to at most the capacity."""
    raise NotImplementedError
