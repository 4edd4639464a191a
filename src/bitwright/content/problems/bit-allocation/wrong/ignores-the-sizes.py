import numpy as np


def allocate_bits(sizes, bits, errors, budget):
    if (sizes * bits[0]).sum() > budget:
        return None
    limit = int(budget / sizes.mean())
    best = {0: (0.0, ())}
    for error in errors.tolist():
        following = {}
        for used, (total, picks) in best.items():
            for width, extra in zip(bits.tolist(), error, strict=True):
                now = used + width
                if now <= limit and (now not in following or total + extra < following[now][0]):
                    following[now] = (total + extra, (*picks, width))
        best = following
    return np.array(min(best.values())[1])
