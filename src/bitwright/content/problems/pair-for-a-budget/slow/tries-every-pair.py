def pair_for_budget(sizes, budget):
    for first in range(len(sizes)):
        for second in range(first + 1, len(sizes)):
            if sizes[first] + sizes[second] == budget:
                return [first, second]
    return None
