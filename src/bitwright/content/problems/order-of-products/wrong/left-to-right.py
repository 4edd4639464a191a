def fewest_multiplications(shape):
    return sum(shape[0] * shape[i] * shape[i + 1] for i in range(1, len(shape) - 1))
