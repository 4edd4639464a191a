def longest_rise(scores):
    lengths = []
    for position, score in enumerate(scores):
        lengths.append(1 + max((lengths[i] for i in range(position) if scores[i] < score), default=0))
    return lengths[-1] if lengths else 0
