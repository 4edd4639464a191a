import numpy as np


def allocate_bits(sizes, bits, errors, budget):
    fitting = bits[bits * sizes.sum() <= budget]
    if len(fitting) == 0:
        return None
    return np.full(len(sizes), fitting[-1])
