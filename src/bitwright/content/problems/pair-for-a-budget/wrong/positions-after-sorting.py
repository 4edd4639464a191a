def pair_for_budget(sizes, budget):
    sizes = sorted(sizes)
    low, high = 0, len(sizes) - 1
    while low < high:
        total = sizes[low] + sizes[high]
        if total == budget:
            return [low, high]
        if total < budget:
            low += 1
        else:
            high -= 1
    return None
