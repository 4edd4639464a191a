from collections import deque


def peaks(values: list[int], width: int) -> list[int]:
    """The maximum of each window of `width` neighbouring values."""
    raise NotImplementedError
