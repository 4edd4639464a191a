import numpy as np


def allocate_bits(sizes, bits, errors, budget):
    choice = np.zeros(len(sizes), dtype=int)
    used = int((sizes * bits[0]).sum())
    if used > budget:
        return None
    while True:
        best, layer = 0.0, -1
        for i, c in enumerate(choice):
            if c + 1 < len(bits):
                cost = sizes[i] * (bits[c + 1] - bits[c])
                gain = (errors[i, c] - errors[i, c + 1]) / cost
                if gain > best and used + cost <= budget:
                    best, layer = gain, i
        if layer < 0:
            return bits[choice]
        used += int(sizes[layer] * (bits[choice[layer] + 1] - bits[choice[layer]]))
        choice[layer] += 1
