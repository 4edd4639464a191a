def peaks(values, width):
    return [max(values[start : start + width]) for start in range(len(values) - width + 1)]
