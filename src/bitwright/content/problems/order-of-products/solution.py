def fewest_multiplications(shape: list[int]) -> int:
    """The smallest number of multiplications for a chain of matrices; its pieces are solved by their length."""
    n = len(shape) - 1
    cost = [[0] * (n + 1) for _ in range(n + 1)]
    for length in range(2, n + 1):
        for start in range(n - length + 1):
            end = start + length
            outer = shape[start] * shape[end]
            cost[start][end] = min(
                cost[start][middle] + cost[middle][end] + outer * shape[middle] for middle in range(start + 1, end)
            )
    return cost[0][n]
