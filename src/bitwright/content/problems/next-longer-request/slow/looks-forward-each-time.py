def next_longer(lengths):
    answer = []
    for position, length in enumerate(lengths):
        for later in range(position + 1, len(lengths)):
            if lengths[later] > length:
                answer.append(later)
                break
        else:
            answer.append(None)
    return answer
