import numpy as np


def allocate_bits(sizes, bits, errors, budget):
    table, widths, weights = errors.tolist(), bits.tolist(), sizes.tolist()

    def solve(layer, left):
        if layer == len(weights):
            return 0.0, []
        best = (float("inf"), None)
        for width, error in zip(widths, table[layer], strict=True):
            if weights[layer] * width <= left:
                rest, picks = solve(layer + 1, left - weights[layer] * width)
                if picks is not None and rest + error < best[0]:
                    best = (rest + error, [width, *picks])
        return best

    picks = solve(0, budget)[1]
    return None if picks is None else np.array(picks)
