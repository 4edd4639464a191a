import itertools


def allocate_bits(sizes, bits, errors, budget):
    best, least = None, float("inf")
    table, costs = errors.tolist(), [[int(size) * int(width) for width in bits] for size in sizes]
    for choice in itertools.product(range(len(bits)), repeat=len(sizes)):
        if sum(costs[i][c] for i, c in enumerate(choice)) <= budget:
            total = sum(table[i][c] for i, c in enumerate(choice))
            if total < least:
                best, least = choice, total
    return None if best is None else bits[list(best)]
