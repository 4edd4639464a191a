"""Rows of a format with factors or shifts, compiled: all that is chosen for a row while the others rest."""

from __future__ import annotations

import numpy as np

from bitwright.core.compiled import compiled
from bitwright.methods.descent.trials import (
    BEST_SHIFT,
    BEST_STEP,
    LANES,
    LEVEL,
    LOSS,
    SCALE,
    SHIFT,
    STEP,
    STEPS,
    TRIES,
    fit,
    follow,
    least,
    near,
    stored,
    weigh,
)


def _nearest(x, rules):  # type: ignore[no-untyped-def]
    """The grid value nearest to `x`."""
    if rules.borders.size == 0:
        return min(max(np.rint(x), rules.low), rules.high)
    value = rules.low
    for j in range(rules.borders.size):
        value = rules.levels[j + 1] if x > rules.borders[j] else value
    return value


nearest = compiled(_nearest)


def _kept(x, zeros, rules):  # type: ignore[no-untyped-def]
    """The factor nearest to `x`; 0 only for 0, where `zeros` may be stored."""
    return np.float32(0) if zeros and x == 0 else stored(x, rules)


kept = compiled(_kept)


def _factors(target, weight, rules, size, fits, table, offsets):  # type: ignore[no-untyped-def]
    """Factors of scales and shifts for a super-block: those with the smallest loss of all that are tried."""
    blocks = target.size // size
    side, none = np.float32(-1), np.float32(0)
    if target.min() > 0:
        side = np.float32(1)
    longest = deepest = none
    for b in range(blocks):
        part = slice(b * size, (b + 1) * size)
        step, shift, code, mean = fit(target[part], weight[part], rules, side, table)
        fits[b, 0], fits[b, 1], fits[b, 2], fits[b, 3] = step, shift, code, mean
        if abs(step) > abs(longest):
            longest = step
        if abs(shift) > abs(deepest):
            deepest = shift
    if rules.direct:
        return kept(longest, rules.zeros, rules), kept(deepest, True, rules)
    end = rules.most if rules.most >= -rules.least else rules.least
    far = rules.ceiling if rules.ceiling >= -rules.floor else rules.floor
    stride, pace = max(np.float32(1), np.rint(abs(end) / 21)), max(np.float32(1), np.rint(abs(far) / 21))
    factors, arounds = np.empty(TRIES, np.float32), np.empty(TRIES, np.float32)
    for k in range(TRIES):
        reach, depth = abs(end) - np.float32(k) * stride, abs(far) - np.float32(k) * pace
        factors[k] = stored(longest / (reach if end > 0 else -reach), rules)
        if deepest != 0:
            arounds[k] = stored(deepest / depth, rules)
        else:
            arounds[k] = side * abs(factors[k])
    shifts = TRIES if rules.shifted else 1
    losses = np.zeros(TRIES * shifts, np.float32)
    for b in range(blocks):
        part, count = slice(b * size, (b + 1) * size), 0
        for k in range(TRIES * shifts):
            offsets[k] = count
            count = near(
                fits[b, 0], fits[b, 1], fits[b, 2], fits[b, 3], factors[k // shifts], arounds[k % shifts], rules,
                table, count,
            )  # fmt: skip
        offsets[TRIES * shifts] = count
        weigh(target[part], weight[part], rules, table, count)
        for k in range(TRIES * shifts):
            losses[k] += table[LOSS, least(table, offsets[k], offsets[k + 1])]
    at = 0
    for k in range(losses.size):
        if losses[k] < losses[at]:
            at = k
    return factors[at // shifts], arounds[at % shifts]


factors_of = compiled(_factors)


def _hand_on(row, felt, across, into):  # type: ignore[no-untyped-def]
    """Later rows of `into` take up their shares of what a row has `felt`."""
    for other in range(row + 1, len(into)):
        share = across[other, row]
        for k in range(into.shape[1]):
            into[other, k] += share * felt[row, k]


hand_on = compiled(_hand_on)


def _begin(  # type: ignore[no-untyped-def]
    base, own, carried, upper, weight, across, felt, values, decoded, rules, size, factor, around, scale, level
):  # fmt: skip
    rows, width = base.shape
    blocks = width // size
    table, offsets = np.zeros((15, LANES), np.float32), np.empty(TRIES * TRIES + 1, np.int64)
    target, fits = np.empty(width, np.float32), np.empty((blocks, 4), np.float32)
    one, none = np.float32(1), np.float32(0)
    for row in range(rows):
        for k in range(width):
            target[k] = base[row, k] + carried[row, k]
        factor[row], around[row] = factors_of(target, weight, rules, size, fits, table, offsets)
        side = one if around[row] > 0 else -one
        for b in range(blocks):
            first = b * size
            part = slice(first, first + size)
            scale[row, b], level[row, b] = one, one
            if not rules.direct:
                step, shift, code, mean = fit(target[part], weight[part], rules, side, table)
                count = near(step, shift, code, mean, factor[row], around[row], rules, table, 0)
                weigh(target[part], weight[part], rules, table, count)
                at = least(table, 0, count)
                scale[row, b], level[row, b] = table[SCALE, at], table[LEVEL, at]
            step = factor[row] * scale[row, b]
            shift = around[row] * level[row, b] if rules.shifted else none
            for i in range(first, first + size):
                value = nearest((target[i] - shift) / (step if step != 0 else one), rules)
                new = value * step + shift
                miss = base[row, i] - new
                values[row, i], decoded[row, i] = value, new
                for k in range(width):
                    target[k] += miss * upper[i, k]
        if across.size:
            for k in range(width):
                felt[row, k] = own[row, k] - decoded[row, k]
            hand_on(row, felt, across, base)


begin = compiled(_begin)
"""(base, own, carried, upper, weight, across, felt, values, decoded, rules, size, factor, around, scale, level).

Codes of one super-block of some rows [rows, width], columns in the order in which they are visited, a row at a time.
The target of a weight is base + carried, and what errors of the row's earlier weights add by `upper` [width, width].
For the target of the whole super-block its factors `factor` and `around` [rows] are chosen, and for that of each block,
just before it is rounded, its numbers `scale` and `level` [rows, blocks]: a weight becomes

    value * (factor * scale) + around * level

`weight` [width] is D of H = U D U^T. `felt` becomes own - decoded, of which `base` of a later row takes the share
across[later, row]; where rows do not meet, both are empty.
"""


def _window(scale, level, factor, around, rules, table, count):  # type: ignore[no-untyped-def]
    """Add the trials whose whole numbers are one off at most; returns how many there are then."""
    for k in range(-1, 2):
        other = scale + np.float32(k)
        if other < rules.least or other > rules.most or (other == 0 and not rules.zeros):
            continue
        for j in range(-1, 2):
            next = level + np.float32(j)
            if next < rules.floor or next > rules.ceiling or (j != 0 and not rules.shifted):
                continue
            table[STEP, count], table[SHIFT, count] = factor * other, around * next if rules.shifted else np.float32(0)
            table[SCALE, count], table[LEVEL, count] = other, next
            count += 1
    return count


window = compiled(_window)


def _spread(change, column, force, hessian):  # type: ignore[no-untyped-def]
    """The force on a row when one of its weights has changed."""
    for k in range(force.size):
        force[k] -= change * hessian[column, k]


spread = compiled(_spread)


def _improve(  # type: ignore[no-untyped-def]
    values, decoded, force, hessian, order, inverse, upper, weight, across, felt, rules, width, factor, around, scale,
    level,
):  # fmt: skip
    rows, columns = decoded.shape
    count, size = inverse.shape[0], inverse.shape[1]
    table = np.zeros((15, LANES), np.float32)
    misses, found = np.empty((size, LANES), np.float32), np.empty((size, LANES), np.float32)
    target, pushed = np.empty(size, np.float32), np.empty(size, np.float32)
    of_scale, of_level = np.empty(width, np.float32), np.empty(width, np.float32)
    by_scale, by_level = np.empty(width, np.float32), np.empty(width, np.float32)
    none, one = np.float32(0), np.float32(1)
    for row in range(rows):
        if across.size:
            for k in range(columns):
                felt[row, k] = force[row, k]
        for place in range(count):
            block = order[place * size] // size
            wide = block * size // width
            now = none
            for i in range(size):
                pushed[i] = force[row, order[place * size + i]]
            for i in range(size):
                target[i] = none
            for j in range(size):
                for i in range(size):
                    target[i] += inverse[place, j, i] * pushed[j]
            for i in range(size):
                now += target[i] * pushed[i]
                target[i] += decoded[row, order[place * size + i]]
            side = one if around[row, wide] > 0 else -one
            if rules.direct and around[row, wide] == 0:
                side = one if target.min() > 0 else -one
            step, shift, code, mean = fit(target, weight[place], rules, side, table)
            tried = STEPS
            if rules.direct:
                for k in range(STEPS):
                    table[STEP, k] = kept(table[BEST_STEP, k], rules.zeros, rules)
                    table[SHIFT, k] = kept(table[BEST_SHIFT, k], True, rules)
            else:
                tried = near(step, shift, code, mean, factor[row, wide], around[row, wide], rules, table, 0)
                tried = window(
                    scale[row, block], level[row, block], factor[row, wide], around[row, wide], rules, table, tried
                )
            follow(target, weight[place], upper[place], rules, table, tried, misses, found)
            at = least(table, 0, tried)
            if not table[LOSS, at] < now * np.float32(1 - 1e-5):
                continue
            if rules.direct:
                factor[row, wide], around[row, wide] = table[STEP, at], table[SHIFT, at]
            else:
                scale[row, block], level[row, block] = table[SCALE, at], table[LEVEL, at]
            for i in range(size):
                column = order[place * size + i]
                new = found[i, at] * table[STEP, at] + table[SHIFT, at]
                change = new - decoded[row, column]
                values[row, column], decoded[row, column] = found[i, at], new
                if change != 0:
                    spread(change, column, force[row], hessian)
        for wide in range(columns // width):
            first = wide * width
            for k in range(width):
                block = (first + k) // size
                of_scale[k] = values[row, first + k] * scale[row, block]
                of_level[k] = level[row, block] if rules.shifted else none
                by_scale[k] = by_level[k] = none
            for i in range(width):
                mine, other = of_scale[i], of_level[i]
                for k in range(width):
                    entry = hessian[first + i, first + k]
                    by_scale[k] += mine * entry
                    by_level[k] += other * entry
            aa = ab = bb = slope = tilt = 0.0
            for k in range(width):
                pull = np.float64(force[row, first + k])
                aa += of_scale[k] * np.float64(by_scale[k])
                ab += of_scale[k] * np.float64(by_level[k])
                bb += of_level[k] * np.float64(by_level[k])
                slope += of_scale[k] * pull
                tilt += of_level[k] * pull
            if not aa > 0:
                continue
            old, past = factor[row, wide], around[row, wide]
            alone = stored(old + slope / aa, rules)
            both, beside, lone = alone, past, past
            spare = aa * bb - ab * ab
            if bb > 0:
                lone = stored(past + tilt / bb, rules)
                if spare > 1e-9 * aa * bb:
                    both = stored(old + (bb * slope - ab * tilt) / spare, rules)
                    beside = stored(past + (aa * tilt - ab * slope) / spare, rules)
            gain, best, nearby = 0.0, old, past
            for k in range(5):
                new = old if k == 1 or k == 4 else alone if k == 3 else both
                next = past if k == 2 or k == 3 else lone if k == 4 else beside
                u, v = np.float64(new) - old, np.float64(next) - past
                loss = aa * u * u + 2 * ab * u * v + bb * v * v - 2 * (slope * u + tilt * v)
                if loss < gain and new * old > 0:
                    gain, best, nearby = loss, new, next
            if not gain < 0:
                continue
            factor[row, wide], around[row, wide] = best, nearby
            for k in range(width):
                column = first + k
                block = column // size
                new = values[row, column] * (best * scale[row, block])
                if rules.shifted:
                    new += nearby * level[row, block]
                change = new - decoded[row, column]
                decoded[row, column] = new
                if change != 0:
                    spread(change, column, force[row], hessian)
        if across.size:
            for k in range(columns):
                felt[row, k] = force[row, k] - felt[row, k]
            hand_on(row, felt, across, force)


improve = compiled(_improve)
"""(values, decoded, force, hessian, order, inverse, upper, weight, across, felt, rules, width, factor, around, scale,
level).

Visits the scales of some rows [rows, columns], a row at a time; columns as they stand, `order` as they are visited.
First each block: with all other weights at rest, the best real weights are decoded + inverse force. Scales and shifts
around the present ones, and around those that suit these weights, are tried with codes that make up for each other
(`inverse` [blocks, size, size], `upper` and `weight` [blocks, size]: H^-1, U and D of each block in the order of
visits), and the best is kept if it lowers the objective. Then the factors of each super-block: the least squares of
both and of each alone, as they can be stored, the best kept if it lowers the objective.

`force` is the pull of each row as its moves feel it; `felt` and `across` as for `kernels.sweep`.
"""
