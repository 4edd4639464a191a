def fewest_multiplications(shape):
    shape = list(shape)
    total = 0
    while len(shape) > 2:
        place = max(range(1, len(shape) - 1), key=lambda i: shape[i])
        total += shape[place - 1] * shape[place] * shape[place + 1]
        del shape[place]
    return total
