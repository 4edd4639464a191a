from bisect import bisect_left


def longest_rise(scores: list[int]) -> int:
    """The most entries kept in order, each strictly larger; `ends` holds the lowest end of each length."""
    ends: list[int] = []
    for score in scores:
        place = bisect_left(ends, score)
        if place == len(ends):
            ends.append(score)
        else:
            ends[place] = score
    return len(ends)
