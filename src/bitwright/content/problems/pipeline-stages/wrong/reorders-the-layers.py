def smallest_bottleneck(costs, devices):
    stages = [0] * devices
    for cost in sorted(costs, reverse=True):
        stages[stages.index(min(stages))] += cost
    return max(stages)
