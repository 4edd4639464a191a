def longest_rise(scores):
    longest = length = 0
    for position, score in enumerate(scores):
        length = length + 1 if position and score > scores[position - 1] else 1
        longest = max(longest, length)
    return longest
