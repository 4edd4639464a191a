def longest_rise(scores):
    ends = []
    for score in scores:
        for place, end in enumerate(ends):
            if end >= score:
                ends[place] = score
                break
        else:
            ends.append(score)
    return len(ends)
