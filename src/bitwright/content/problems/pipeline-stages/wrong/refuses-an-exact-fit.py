def smallest_bottleneck(costs, devices):
    low, high = max(costs), sum(costs)
    while low < high:
        limit = (low + high) // 2
        stages, stage = 1, 0
        for cost in costs:
            stage += cost
            if stage >= limit:
                stages += 1
                stage = cost
        if stages <= devices:
            high = limit
        else:
            low = limit + 1
    return low
