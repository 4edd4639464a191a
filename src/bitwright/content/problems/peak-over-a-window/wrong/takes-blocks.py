def peaks(values, width):
    return [max(values[start : start + width]) for start in range(0, len(values) - width + 1, width)]
