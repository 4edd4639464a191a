def longest_rise(scores):
    longest = 0
    rise = []
    for score in scores:
        while rise and rise[-1] >= score:
            rise.pop()
        rise.append(score)
        longest = max(longest, len(rise))
    return longest
