def smallest_bottleneck(costs, devices):
    share = sum(costs) / devices
    worst = stage = 0
    stages = 1
    for cost in costs:
        if stage and stage + cost > share and stages < devices:
            stages += 1
            stage = 0
        stage += cost
        worst = max(worst, stage)
    return worst
