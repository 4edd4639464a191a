def best_gain(sizes, gains, capacity):
    def choose(i, room):
        if i == len(sizes):
            return 0
        best = choose(i + 1, room)
        if sizes[i] <= room:
            best = max(best, gains[i] + choose(i + 1, room - sizes[i]))
        return best

    return choose(0, capacity)
