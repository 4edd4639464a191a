def largest_run(gains):
    ending = gains[0]
    for gain in gains[1:]:
        ending = max(gain, ending + gain)
    return ending
