def longest_rise(scores):
    lengths = []
    for position, score in enumerate(scores):
        longest = 0
        for before in range(position):
            if scores[before] < score and lengths[before] > longest:
                longest = lengths[before]
        lengths.append(longest + 1)
    return max(lengths, default=0)
