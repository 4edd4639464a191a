def smallest_bottleneck(costs, devices):
    low, high = max(costs), sum(costs)
    while low < high:
        limit = (low + high) // 2
        stages = stage = 0
        for cost in costs:
            if stage + cost > limit:
                stages += 1
                stage = 0
            stage += cost
        if stages <= devices:
            high = limit
        else:
            low = limit + 1
    return low
