import numpy as np


def lloyd(x, levels, rounds):
    values, table = x.tolist(), levels.tolist()

    def assign():
        codes = []
        for value in values:
            best, least = 0, abs(value - table[0])
            for k, level in enumerate(table):
                distance = abs(value - level)
                if distance < least:
                    best, least = k, distance
            codes.append(best)
        return codes

    for _ in range(rounds):
        total, count = [0.0] * len(table), [0] * len(table)
        for value, code in zip(values, assign(), strict=True):
            total[code] += value
            count[code] += 1
        table = [t / c if c else level for t, c, level in zip(total, count, table, strict=True)]
    return np.array(table), np.array(assign())
