def fewest_multiplications(shape):
    shape = list(shape)
    total = 0
    while len(shape) > 2:
        places = range(1, len(shape) - 1)
        place = min(places, key=lambda i: shape[i - 1] * shape[i] * shape[i + 1])
        total += shape[place - 1] * shape[place] * shape[place + 1]
        del shape[place]
    return total
