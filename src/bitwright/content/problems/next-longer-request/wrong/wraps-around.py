def next_longer(lengths):
    n = len(lengths)
    answer = [None] * n
    waiting = []
    for step in range(2 * n):
        position = step % n
        while waiting and lengths[waiting[-1]] < lengths[position]:
            answer[waiting.pop()] = position
        if step < n:
            waiting.append(position)
    return answer
