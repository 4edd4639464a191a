def next_longer(lengths):
    answer = [None] * len(lengths)
    for position in range(len(lengths) - 1):
        if lengths[position + 1] > lengths[position]:
            answer[position] = position + 1
    return answer
