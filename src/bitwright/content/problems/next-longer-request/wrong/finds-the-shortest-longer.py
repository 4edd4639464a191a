def next_longer(lengths):
    answer = []
    for position, length in enumerate(lengths):
        longer = [later for later in range(position + 1, len(lengths)) if lengths[later] > length]
        answer.append(min(longer, key=lambda later: lengths[later], default=None))
    return answer
