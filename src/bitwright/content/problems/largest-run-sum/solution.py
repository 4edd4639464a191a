def largest_run(gains: list[int]) -> int:
    """The largest sum of one or more neighbouring gains, from the best run that ends at each place."""
    best = ending = gains[0]
    for gain in gains[1:]:
        ending = gain + max(ending, 0)
        best = max(best, ending)
    return best
