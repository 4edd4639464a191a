def smallest_bottleneck(costs, devices):
    low, high = 0, sum(costs)
    while low < high:
        limit = (low + high) // 2
        stages, stage = 1, 0
        for cost in costs:
            if stage and stage + cost > limit:
                stages += 1
                stage = 0
            stage += cost
        if stages <= devices:
            high = limit
        else:
            low = limit + 1
    return low
