import numpy as np


def allocate_bits(sizes, bits, errors, budget):
    best = {0: (0.0, ())}
    for size, error in zip(sizes.tolist(), errors.tolist(), strict=True):
        following = {}
        for used, (total, picks) in best.items():
            for choice, extra in enumerate(error):
                now = used + size * int(bits[choice])
                if now <= budget and (now not in following or total + extra < following[now][0]):
                    following[now] = (total + extra, (*picks, choice))
        best = following
    return np.array(min(best.values())[1]) if best else None
