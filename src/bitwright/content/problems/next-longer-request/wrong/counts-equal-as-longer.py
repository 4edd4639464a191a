def next_longer(lengths):
    answer = [None] * len(lengths)
    waiting = []
    for position, length in enumerate(lengths):
        while waiting and lengths[waiting[-1]] <= length:
            answer[waiting.pop()] = position
        waiting.append(position)
    return answer
