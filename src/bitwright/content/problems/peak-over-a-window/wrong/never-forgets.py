def peaks(values, width):
    answer = []
    peak = max(values[:width])
    for position in range(width - 1, len(values)):
        peak = max(peak, values[position])
        answer.append(peak)
    return answer
