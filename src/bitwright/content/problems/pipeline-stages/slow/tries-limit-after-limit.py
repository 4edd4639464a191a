def smallest_bottleneck(costs, devices):
    limit = max(costs)
    while True:
        stages, stage = 1, 0
        for cost in costs:
            stage += cost
            if stage > limit:
                stages += 1
                stage = cost
        if stages <= devices:
            return limit
        limit += 1
