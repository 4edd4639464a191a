def peaks(values, width):
    return [max(values[max(0, position - width + 1) : position + 1]) for position in range(len(values))]
