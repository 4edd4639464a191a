def pair_for_budget(sizes, budget):
    seen = set()
    for size in sizes:
        if budget - size in seen:
            return [budget - size, size]
        seen.add(size)
    return None
