def fewest_multiplications(shape):
    def cost(start, end):
        if end - start == 1:
            return 0
        outer = shape[start] * shape[end]
        return min(cost(start, middle) + cost(middle, end) + outer * shape[middle] for middle in range(start + 1, end))

    return cost(0, len(shape) - 1)
