def next_longer(lengths):
    answer = []
    longest = None
    for position in reversed(range(len(lengths))):
        if longest is None or lengths[position] >= lengths[longest]:
            answer.append(None)
            longest = position
        else:
            answer.append(longest)
    return answer[::-1]
