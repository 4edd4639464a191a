import numpy as np


def allocate_bits(sizes, bits, errors, budget):
    best = {0: (0.0, ())}
    for size, error in zip(sizes.tolist(), errors.tolist(), strict=True):
        following = {}
        for used, (total, picks) in best.items():
            for width, extra in zip(bits.tolist(), error, strict=True):
                now = used + size * width
                if now < budget and (now not in following or total + extra < following[now][0]):
                    following[now] = (total + extra, (*picks, width))
        best = following
    return np.array(min(best.values())[1]) if best else None
