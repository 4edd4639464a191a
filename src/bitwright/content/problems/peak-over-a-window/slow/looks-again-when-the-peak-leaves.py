def peaks(values, width):
    peak = max(values[:width])
    answer = [peak]
    for start in range(1, len(values) - width + 1):
        if values[start - 1] == peak:
            peak = max(values[start : start + width])
        else:
            peak = max(peak, values[start + width - 1])
        answer.append(peak)
    return answer
