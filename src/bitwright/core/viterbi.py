"""Viterbi's algorithm for `Trellis`, compiled. Imported where it runs, and only there: numba takes a while to load.

Source: Viterbi 1967, "Error bounds for convolutional codes"; Marcellin and Fischer 1990, "Trellis coded quantization".
"""

from __future__ import annotations

import numpy as np

from bitwright.core.compiled import compiled

AHEAD = 64
"""Weights of the next stretch that are looked at before the path through a stretch is settled."""
FAR = np.float32(6.0)
"""Beyond it, a target only says which end is meant: costs must fit 27 bits."""
UNIT = np.float32(1 << 16)
"""Costs are whole numbers of 1 / UNIT; their lowest four bits hold the branch that was taken."""
NEVER = 1 << 28
"""The cost of states that no path has reached."""


def _step(target, weight, values, cost, best, wide, wider, branch, bits):  # type: ignore[no-untyped-def]
    """One weight: the best way into each state, then the cost of each state's value, in place."""
    reach = best.size
    for first in range(0, 1 << bits, 4):
        a, b = cost[first * reach : (first + 1) * reach], cost[(first + 1) * reach : (first + 2) * reach]
        c, d = cost[(first + 2) * reach : (first + 3) * reach], cost[(first + 3) * reach : (first + 4) * reach]
        i, j, k, m = first, first + 1, first + 2, first + 3
        if first == 0:
            for q in range(reach):
                best[q] = min(min(a[q], b[q] | j), min(c[q] | k, d[q] | m))
        else:
            for q in range(reach):
                best[q] = min(best[q], min(min(a[q] | i, b[q] | j), min(c[q] | k, d[q] | m)))
    for q in range(reach):
        branch[q] = np.uint8(best[q] & 15)
    # Each of them 2^bits times over: pairs of them in words first, for such copies become vectors.
    for q in range(reach):
        pair = np.int64(best[q] & ~15)
        wide[q] = pair | (pair << 32)
    now, then, count = wide, wider, reach
    for _ in range(bits - 1):
        for q in range(count):
            then[2 * q] = now[q]
            then[2 * q + 1] = now[q]
        now, then = then, now
        count *= 2
    came = now.view(np.int32)
    for state in range(cost.size):
        miss = target - values[state]
        cost[state] = came[state] + (np.int32(weight * miss * miss) << 4)


step = compiled(_step)


def _encode(  # type: ignore[no-untyped-def]
    base, own, scale, row_weight, weight, across, upper, values, bits, order, ends, codes, error
):  # fmt: skip
    rows, n = base.shape
    states, reach = values.size, values.size >> bits
    longest, before = 0, 0
    for end in ends:
        longest, before = max(longest, end - before), end
    branches = np.empty((longest + AHEAD, reach), np.uint8)
    cost, best = np.empty(states, np.int32), np.empty(reach, np.int32)
    wide, wider = np.empty(states // 2, np.int64), np.empty(states // 2, np.int64)
    path = np.zeros(longest, np.int64)
    aim, miss = np.zeros((rows, n), np.float32), np.zeros((rows, n), np.float32)
    carried = np.zeros((rows, n), np.float32)
    known = np.zeros((n, rows), np.float32)
    begin, start = 0, 0
    for stop in ends:
        cost[:] = NEVER
        cost[begin] = 0
        done = start
        for end in (stop, min(stop + AHEAD, order.size)):
            for at in range(done, end):
                row, column = order[at] // n, order[at] % n
                target = base[row, column]
                if across.size:
                    for other in range(row):
                        target += across[other, row] * known[column, other]
                aim[row, column] = target
                target += carried[row, column]
                unit = scale[row]
                target = min(max(target / unit, -FAR), FAR) if unit != 0 else np.float32(0)
                step(
                    target, row_weight[row] * weight[column] * UNIT, values, cost, best, wide, wider,
                    branches[at - start], bits,
                )  # fmt: skip
                if at % 4 == 3:
                    least = cost.min() & ~15
                    for each in range(states):
                        cost[each] -= least
            done = end
            state = cost.argmin()
            for at in range(end - 1, start - 1, -1):
                if at < stop:
                    path[at - start] = state
                previous = state >> bits
                state = previous | np.int64(branches[at - start, previous]) * reach
            for at in range(start, stop):
                row, column = order[at] // n, order[at] % n
                value = scale[row] * values[path[at - start]]
                known[column, row] = own[row, column] - value
                change = aim[row, column] - value - miss[row, column]
                miss[row, column] += change
                if upper.size and change != 0:
                    for later in range(column + 1, n):
                        carried[row, later] += change * upper[column, later]
        for at in range(start, stop):
            row, column = order[at] // n, order[at] % n
            codes[row, column] = path[at - start] & ((1 << bits) - 1)
            error[row, column] = known[column, row]
        begin, start = path[stop - start - 1], stop


encode = compiled(_encode)
"""(base, own, scale, row weight, weight, across, upper, values, bits, order, ends, codes, error), the last two filled.

Finds the path through rows `own` [rows, n], whose weights it meets in `order` (places in the flattened rows), that
keeps the sum of row weight * weight * r^2 small. A weight is worth scale of its row times the value of its state, its
error e is `own` - that. r_ik is what is missing to the weight's target

    base_ik + sum_{h < i} across_hi e_hk + sum_{j < k} upper_jk m_ij,      m = base + sum across e - worth

`across` [rows, rows] and `upper` [n, n] are unit upper triangular, or empty where nothing is fed back. Stretches of the
path, up to each of `ends`, are settled one by one: Viterbi's algorithm runs through a stretch and the `AHEAD` weights
after it, and errors of a settled stretch reach the targets of all later ones. Weights are at most 1.
"""
