def smallest_bottleneck(costs, devices):
    best = [0]
    for cost in costs:
        best.append(best[-1] + cost)
    for _ in range(min(devices, len(costs)) - 1):
        row = [0]
        for end in range(1, len(costs) + 1):
            found, stage = best[end], 0
            for start in reversed(range(end)):
                stage += costs[start]
                found = min(found, max(best[start], stage))
            row.append(found)
        best = row
    return best[-1]
