def pair_for_budget(sizes, budget):
    for position in range(len(sizes) - 1):
        if sizes[position] + sizes[position + 1] == budget:
            return [position, position + 1]
    return None
