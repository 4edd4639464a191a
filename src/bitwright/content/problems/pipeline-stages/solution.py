def smallest_bottleneck(costs: list[int], devices: int) -> int:
    """The smallest possible cost of the most expensive of at most `devices` stages, by halving the range of limits."""
    low, high = max(costs), sum(costs)
    while low < high:
        limit = (low + high) // 2
        if stages_needed(costs, limit) <= devices:
            high = limit
        else:
            low = limit + 1
    return low


def stages_needed(costs: list[int], limit: int) -> int:
    """The fewest stages of at most `limit` each; no single cost exceeds the limit."""
    stages, stage = 1, 0
    for cost in costs:
        stage += cost
        if stage > limit:
            stages += 1
            stage = cost
    return stages
