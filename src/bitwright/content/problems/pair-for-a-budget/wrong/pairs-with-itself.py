def pair_for_budget(sizes, budget):
    where = {size: position for position, size in enumerate(sizes)}
    for position, size in enumerate(sizes):
        if budget - size in where:
            return [position, where[budget - size]]
    return None
