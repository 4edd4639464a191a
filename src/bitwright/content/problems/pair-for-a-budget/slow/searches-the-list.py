def pair_for_budget(sizes, budget):
    for position, size in enumerate(sizes):
        earlier = sizes[:position]
        if budget - size in earlier:
            return [earlier.index(budget - size), position]
    return None
