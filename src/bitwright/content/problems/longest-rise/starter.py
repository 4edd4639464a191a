from bisect import bisect_left


def longest_rise(scores: list[int]) -> int:
    """The most entries that can be kept, in order, each strictly larger than the one before."""
    raise NotImplementedError
