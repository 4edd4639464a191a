from bisect import bisect_right


def longest_rise(scores):
    ends = []
    for score in scores:
        place = bisect_right(ends, score)
        if place == len(ends):
            ends.append(score)
        else:
            ends[place] = score
    return len(ends)
