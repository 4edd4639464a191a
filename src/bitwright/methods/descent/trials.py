"""Scales and shifts of one block, tried many at a time, compiled. Imported where it runs, and only there.

What is tried stands side by side, and loops over it are the inner ones: they become vectors without reordering sums.
Who changes these loops saves `rows.py` anew as well: what is kept of its loops holds these, and is as old as its file.
"""

from __future__ import annotations

import math

import numpy as np

from bitwright.core.compiled import compiled

STEPS = 32
"""Steps that a fit begins with: shares of the block's range, where it has a sign the half of them for each."""
ROUNDS = 3
"""Rounds of codes in a fit; after the first only the shift follows them, after others step and shift."""
TRIES = 2
"""Factors of a super-block that are tried: of scales, and as many of shifts."""
REACH = 2
"""How far from the best one the whole numbers of a block are tried."""
LANES = (2 * REACH + 1) ** 2 * TRIES * TRIES
"""Scales and shifts that are tried at once, at most."""
STEP, SHIFT, INVERSE, WANTED, VALUE, LOSS, SCALE, LEVEL, SQUARES, SUMS, MEETS, BEST, BEST_STEP, BEST_SHIFT, BEST_SUM = (
    range(15)
)
"""Rows of a table of trials [15, `LANES`]."""


def _stored(x, rules):  # type: ignore[no-untyped-def]
    """The factor nearest to `x`; the smallest one where that would be 0."""
    size, finest = min(abs(np.float64(x)), np.float64(rules.largest)), np.float64(rules.finest)
    unit = max(math.ldexp(1.0, math.frexp(size)[1] - rules.digits), finest)
    found = np.float32(max(np.rint(size / unit) * unit, finest))
    return -found if x < 0 else found


stored = compiled(_stored)


def _weigh(target, weight, rules, table, count):  # type: ignore[no-untyped-def]
    """LOSS of `count` trials, sum weight (target - value * STEP - SHIFT)^2, with the nearest values.

    SQUARES, SUMS and MEETS become the weighted sums of squares of values, of values, and of values times the target.
    """
    step, shift, inverse, wanted = table[STEP], table[SHIFT], table[INVERSE], table[WANTED]
    loss, value, squares, sums, meets = table[LOSS], table[VALUE], table[SQUARES], table[SUMS], table[MEETS]
    none, one = np.float32(0), np.float32(1)
    low, high = rules.low, rules.high
    for k in range(count):
        inverse[k] = one / step[k] if step[k] != 0 else none
        loss[k] = squares[k] = sums[k] = meets[k] = none
    for i in range(target.size):
        x, w = target[i], weight[i]
        if rules.borders.size == 0:
            for k in range(count):
                value[k] = min(max(np.rint((x - shift[k]) * inverse[k]), low), high)
        else:
            for k in range(count):
                value[k], wanted[k] = low, (x - shift[k]) * inverse[k]
            for j in range(rules.borders.size):
                border, level = rules.borders[j], rules.levels[j + 1]
                for k in range(count):
                    value[k] = level if wanted[k] > border else value[k]
        for k in range(count):
            miss = x - (value[k] * step[k] + shift[k])
            part = w * value[k]
            loss[k] += w * miss * miss
            squares[k] += part * value[k]
            sums[k] += part
            meets[k] += part * x


weigh = compiled(_weigh)


def _follow(target, weight, upper, rules, table, count, misses, values):  # type: ignore[no-untyped-def]
    """LOSS of `count` trials whose codes make up for each other: weight and `upper` are D and U of the block's Hessian.

    Fills `values` [size, count] and `misses`, target - decoded.
    """
    step, shift, inverse, wanted = table[STEP], table[SHIFT], table[INVERSE], table[WANTED]
    loss, value = table[LOSS], table[VALUE]
    none, one = np.float32(0), np.float32(1)
    low, high = rules.low, rules.high
    for k in range(count):
        inverse[k] = one / step[k] if step[k] != 0 else none
        loss[k] = none
    aim = table[SUMS]  # a row that nothing else needs here
    for i in range(target.size):
        x, w = target[i], weight[i]
        for k in range(count):
            aim[k] = x
        for j in range(i):
            share = upper[j, i]
            for k in range(count):
                aim[k] += share * misses[j, k]
        if rules.borders.size == 0:
            for k in range(count):
                value[k] = min(max(np.rint((aim[k] - shift[k]) * inverse[k]), low), high)
        else:
            for k in range(count):
                value[k], wanted[k] = low, (aim[k] - shift[k]) * inverse[k]
            for j in range(rules.borders.size):
                border, level = rules.borders[j], rules.levels[j + 1]
                for k in range(count):
                    value[k] = level if wanted[k] > border else value[k]
        for k in range(count):
            decoded = value[k] * step[k] + shift[k]
            rest = aim[k] - decoded
            loss[k] += w * rest * rest
            misses[i, k] = x - decoded
            values[i, k] = value[k]


follow = compiled(_follow)


def _fit(target, weight, rules, side, table):  # type: ignore[no-untyped-def]
    """The best step, its shift (of the sign `side`, or 0), and the weighted means of its codes and of the target.

    BEST_STEP and BEST_SHIFT of `table` hold what became of each of `STEPS`.
    """
    step, shift, loss = table[STEP], table[SHIFT], table[LOSS]
    squares, sums, meets = table[SQUARES], table[SUMS], table[MEETS]
    best, best_step, best_shift, best_sum = table[BEST], table[BEST_STEP], table[BEST_SHIFT], table[BEST_SUM]
    none, one, half = np.float32(0), np.float32(1), np.float32(0.5)
    low, high = rules.low, rules.high
    top = bottom = target[0]
    total, whole = none, none
    for i in range(target.size):
        top, bottom = max(top, target[i]), min(bottom, target[i])
        total += weight[i]
        whole += weight[i] * target[i]
    shares = STEPS // 2 if rules.signed and not rules.shifted else STEPS
    if rules.shifted:
        if side < 0:
            bottom = min(bottom, none)
        span = top - bottom
    else:
        span = max(top, -bottom)
    for k in range(STEPS):
        share = rules.first + (rules.last - rules.first) * np.float32(k % shares) / np.float32(shares - 1)
        if rules.shifted:
            step[k] = span * share / (high - low)
            given = bottom + span * (one - share) * half - step[k] * low
            shift[k] = given if given * side > 0 else none
        else:
            step[k] = span * share / rules.top
            if k >= shares:
                step[k] = -step[k]
            shift[k] = none
        best[k] = np.float32(np.inf)
        best_step[k], best_shift[k], best_sum[k] = step[k], shift[k], none
    for round in range(ROUNDS):
        weigh(target, weight, rules, table, STEPS)
        for k in range(STEPS):
            if loss[k] < best[k]:
                best[k], best_step[k], best_shift[k], best_sum[k] = loss[k], step[k], shift[k], sums[k]
            found, offset = step[k], none
            if rules.shifted:
                spread = squares[k] * total - sums[k] * sums[k]
                if round > 0 and spread > np.float32(1e-6) * squares[k] * total:
                    found = (total * meets[k] - sums[k] * whole) / spread
                offset = (whole - found * sums[k]) / total
            if not rules.shifted or offset * side < 0:
                offset = none
                found = meets[k] / squares[k] if squares[k] > 0 else step[k]
            if found > 0 or (not rules.shifted and rules.signed):
                step[k], shift[k] = found, offset
    at = 0
    for k in range(STEPS):
        if best[k] < best[at]:
            at = k
    return best_step[at], best_shift[at], best_sum[at] / total, whole / total


fit = compiled(_fit)


def _near(step, shift, code, mean, factor, around, rules, table, count):  # type: ignore[no-untyped-def]
    """Add the trials around a step and shift that can be stored with these factors; returns how many there are then.

    Where shifts come along, each scale gets those around the best one for codes of mean `code` and a target of mean
    `mean`.
    """
    centre = min(max(np.rint(step / factor), rules.least), rules.most)
    for k in range(-REACH, REACH + 1):
        scale = centre + np.float32(k)
        if scale < rules.least or scale > rules.most or (scale == 0 and not rules.zeros):
            continue
        if not rules.shifted:
            table[STEP, count], table[SHIFT, count] = factor * scale, np.float32(0)
            table[SCALE, count], table[LEVEL, count] = scale, np.float32(0)
            count += 1
            continue
        wanted = mean - factor * scale * code
        middle = min(max(np.rint(wanted / around), rules.floor), rules.ceiling)
        for j in range(-REACH, REACH + 1):
            level = middle + np.float32(j)
            if level < rules.floor or level > rules.ceiling:
                continue
            table[STEP, count], table[SHIFT, count] = factor * scale, around * level
            table[SCALE, count], table[LEVEL, count] = scale, level
            count += 1
    return count


near = compiled(_near)


def _least(table, start, stop):  # type: ignore[no-untyped-def]
    """The trial of the smallest LOSS."""
    at = start
    for k in range(start + 1, stop):
        if table[LOSS, k] < table[LOSS, at]:
            at = k
    return at


least = compiled(_least)
