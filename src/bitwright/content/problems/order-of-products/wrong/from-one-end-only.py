def fewest_multiplications(shape):
    n = len(shape) - 1
    cost = [[0] * (n + 1) for _ in range(n + 1)]
    for length in range(2, n + 1):
        for start in range(n - length + 1):
            end = start + length
            first = cost[start + 1][end] + shape[start] * shape[start + 1] * shape[end]
            last = cost[start][end - 1] + shape[start] * shape[end - 1] * shape[end]
            cost[start][end] = min(first, last)
    return cost[0][n]
