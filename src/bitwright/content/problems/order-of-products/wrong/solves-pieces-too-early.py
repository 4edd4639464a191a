def fewest_multiplications(shape):
    n = len(shape) - 1
    cost = [[0] * (n + 1) for _ in range(n + 1)]
    for start in range(n):
        for end in range(start + 2, n + 1):
            cost[start][end] = min(
                cost[start][middle] + cost[middle][end] + shape[start] * shape[middle] * shape[end]
                for middle in range(start + 1, end)
            )
    return cost[0][n]
