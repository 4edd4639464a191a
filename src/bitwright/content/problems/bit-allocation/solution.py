import numpy as np


def allocate_bits(sizes: np.ndarray, bits: np.ndarray, errors: np.ndarray, budget: int) -> np.ndarray | None:
    """The bits (int64) of each layer that minimise the total error within the budget, or None if nothing fits."""
    least = np.zeros(budget + 1)  # the smallest error of the layers so far, within each number of bits
    picks = []
    for size, error in zip(sizes, errors, strict=True):
        options = np.full((len(bits), budget + 1), np.inf)
        for choice, cost in enumerate(size * bits):
            if cost <= budget:
                options[choice, cost:] = least[: budget + 1 - cost] + error[choice]
        picks.append(options.argmin(axis=0))
        least = options.min(axis=0)
    if np.isinf(least[budget]):
        return None

    chosen = np.zeros(len(sizes), dtype=np.int64)
    left = budget
    for layer in reversed(range(len(sizes))):
        chosen[layer] = bits[picks[layer][left]]
        left -= sizes[layer] * chosen[layer]
    return chosen
