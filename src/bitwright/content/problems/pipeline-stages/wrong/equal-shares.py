def smallest_bottleneck(costs, devices):
    return max(max(costs), -(-sum(costs) // devices))
