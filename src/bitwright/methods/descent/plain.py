"""Rows solved by plain arrays, all at once: where nothing is compiled, and for tensors on a GPU."""

from __future__ import annotations

from typing import Any

from bitwright.core.array import Array, like, namespace, subtract_product
from bitwright.core.qtensor import divisor
from bitwright.core.scaling import Number
from bitwright.methods.descent import solver
from bitwright.methods.descent.blocks import visit_codes
from bitwright.methods.descent.outputs import ROWS, Outputs
from bitwright.methods.descent.scales import moved
from bitwright.methods.descent.stored import Scales
from bitwright.methods.gptq import Factor

STEPS = 12
"""Shares of a block's range that a fit begins with, for each sign."""
ROUNDS = 3
"""Rounds of codes in a fit."""
SETTLED = "no compiled loops here (numba, on a processor): the scale of each block is chosen once"


class Plain:
    """A `Road` of array operations. Sweeps refine codes and factors; a block's own numbers are chosen once."""

    def __init__(self, scales: Scales, factor: Factor, outputs: Outputs | None, rows: int) -> None:
        """Fills `scales`, arrays of the matrix's library."""
        self.scales, self.factor, self.outputs = scales, factor, outputs
        self.structure, self.rules = scales.structure, scales.structure.rules()
        self.grid = scales.structure.format.grid
        self.rows = rows if outputs is None else ROWS
        self.notes: tuple[str, ...] = (SETTLED,) if outputs is None else (SETTLED, solver.PLAIN)

    def begin(self, part: slice, tile: slice, base: Array, own: Array, carried: Array) -> tuple[Array, Array, Array]:
        """See `Road`; errors go to other rows between calls only."""
        xp, size, scales = namespace(base), self.structure.size, self.scales
        weight, upper = self.factor.rest[tile], self.factor.upper[tile, tile]
        target, values, decoded = base + carried, xp.empty_like(base), xp.empty_like(base)
        ones = xp.ones_like(base[:, 0])
        side = xp.where(xp.min(target, axis=-1) > 0, ones, -ones)
        wide = int(self.factor.order[tile.start]) // self.structure.width
        factor, around = self._factors(target, weight, side)
        scales.factor[part, wide], scales.around[part, wide] = factor, around
        for first in range(0, base.shape[1], size):
            block = int(self.factor.order[tile.start + first]) // size
            inside = slice(first, first + size)
            scale, level = ones, ones
            if not self.structure.direct:
                side = xp.where(around > 0, ones, -ones)
                scale, level = self._whole(target[:, inside], weight[inside], side, factor, around)
                scales.scale[part, block], scales.level[part, block] = scale, level
            step, shift = factor * scale, around * level if self.rules.shifted else 0 * around
            for i in range(first, first + size):
                values[:, i] = self.grid.round((target[:, i] - shift) / divisor(step))
                decoded[:, i] = values[:, i] * step + shift
                target[:, i + 1 :] += (base[:, i] - decoded[:, i])[:, None] * upper[i, i + 1 :]
        return values, base - decoded, own - decoded

    def _factors(self, target: Array, weight: Array, side: Array) -> tuple[Array, Array]:
        """Factors that map the largest scale and shift of each row of a super-block to the ends of their numbers."""
        xp, size = namespace(target), self.structure.size
        shape = (target.shape[0], -1, size)
        step, shift, _, _ = self._fit(xp.reshape(target, shape), xp.reshape(weight, (-1, size)), side[:, None])
        longest, deepest = (_extreme(each) for each in (step, shift))
        number = self.structure.format.scale.levels[-1].number
        if self.structure.direct:
            kept = _stored(longest, number)
            if self.rules.zeros:
                kept = xp.where(longest == 0, longest, kept)
            return kept, xp.where(deepest == 0, deepest, _stored(deepest, number))
        rules = self.rules
        factor = _stored(longest / float(rules.most if rules.most >= -rules.least else rules.least), number)
        around = _stored(deepest / float(max(rules.ceiling, -rules.floor)), number)
        return factor, xp.where(deepest == 0, side * xp.abs(factor), around)

    def _whole(self, target: Array, weight: Array, side: Array, factor: Array, around: Array) -> tuple[Array, Array]:
        """The whole numbers of one block, [rows] each, that suit its target [rows, size] best."""
        xp, rules = namespace(target), self.rules
        step, _, code, mean = self._fit(target, weight, side)
        centre = (step / factor).round().clip(float(rules.least), float(rules.most))
        best = None
        for k in (0, -1, 1):
            scale = (centre + k).clip(float(rules.least), float(rules.most))
            if not rules.zeros:
                scale = xp.where(scale == 0, xp.ones_like(scale), scale)
            middle = ((mean - factor * scale * code) / around).round()
            for j in (0, -1, 1) if rules.shifted else (0,):
                level = (middle + j).clip(float(rules.floor), float(rules.ceiling))
                shift = around * level if rules.shifted else 0 * around
                _, loss = self._round(target, weight, factor * scale, shift)
                if best is None:
                    best, found = loss, (scale, level)
                better = loss < best
                best = xp.where(better, loss, best)
                found = (xp.where(better, scale, found[0]), xp.where(better, level, found[1]))
        return found if rules.shifted else (found[0], xp.ones_like(found[0]))

    def _round(self, target: Array, weight: Array, step: Array, shift: Array) -> tuple[Array, Array]:
        """The nearest grid values to `target` [..., size], and their loss [...]."""
        value = self.grid.round((target - shift[..., None]) / divisor(step)[..., None])
        miss = target - (value * step[..., None] + shift[..., None])
        return value, (weight * miss * miss).sum(axis=-1)

    def _fit(self, target: Array, weight: Array, side: Array) -> tuple[Array, Array, Array, Array]:
        """As `trials.fit`: the best step, its shift and the weighted means of its codes and of the target, [...]."""
        xp, rules = namespace(target), self.rules
        low, high = float(rules.low), float(rules.high)
        top, bottom = xp.max(target, axis=-1), xp.min(target, axis=-1)
        total, whole = weight.sum(axis=-1), (weight * target).sum(axis=-1)
        if rules.shifted:
            bottom = xp.where(side < 0, bottom.clip(None, 0.0), bottom)
        span = top - bottom if rules.shifted else xp.maximum(top, -bottom)
        best = None
        for sign in (1.0, -1.0) if rules.signed and not rules.shifted else (1.0,):
            for k in range(STEPS):
                share = float(rules.first + (rules.last - rules.first) * k / (STEPS - 1))
                step = sign * span * (share / (high - low if rules.shifted else float(rules.top)))
                shift = xp.zeros_like(step)
                if rules.shifted:
                    shift = bottom + span * ((1 - share) / 2) - step * low
                    shift = xp.where(shift * side > 0, shift, xp.zeros_like(shift))
                for round in range(ROUNDS):
                    value, loss = self._round(target, weight, step, shift)
                    sums = (weight * value).sum(axis=-1)
                    if best is None:
                        best, found = loss, (step, shift, sums)
                    better = loss < best
                    best = xp.where(better, loss, best)
                    found = tuple(
                        xp.where(better, new, old) for new, old in zip((step, shift, sums), found, strict=True)
                    )
                    squares, meets = ((weight * value * each).sum(axis=-1) for each in (value, target))
                    step, shift = self._closed(step, round, side, (squares, sums, meets, total, whole))
        step, shift, sums = found
        return step, shift, sums / total, whole / total

    def _closed(self, step: Array, round: int, side: Array, moments: Any) -> tuple[Array, Array]:
        """Step and shift of the least squares for given codes; of the first round the shift alone."""
        squares, sums, meets, total, whole = moments
        xp = namespace(step)
        alone = xp.where(squares > 0, meets / divisor(squares), step)
        if not self.rules.shifted:
            return (alone if self.rules.signed else xp.where(alone > 0, alone, step)), xp.zeros_like(step)
        found, spread = step, squares * total - sums * sums
        if round > 0:
            found = xp.where(spread > 1e-6 * squares * total, (total * meets - sums * whole) / divisor(spread), step)
        shift = (whole - found * sums) / total
        wrong = shift * side < 0
        found, shift = xp.where(wrong, alone, found), xp.where(wrong, xp.zeros_like(shift), shift)
        return xp.where(found > 0, found, step), shift

    def visit_scales(self, values: Array, decoded: Array, pull: Array) -> None:
        """See `Road`; factors of scales, then those of shifts."""
        xp, scales, hessian = namespace(values), self.scales, self.factor.hessian
        width, size = self.structure.width, self.structure.size
        number = self.structure.format.scale.levels[-1].number
        for wide in range(self.structure.columns // width):
            inside, blocks = (slice(wide * n, (wide + 1) * n) for n in (width, width // size))
            scale, level = (xp.repeat(x[:, blocks], size, axis=-1).T for x in (scales.scale, scales.level))
            parts = ((scales.factor, values[:, inside].T * scale), (scales.around, level))
            for factor, levels in parts if self.rules.shifted else parts[:1]:
                factor[:, wide], step = moved(
                    levels, factor[:, wide], lambda x: _stored(x, number), pull.T, hessian, inside, self.outputs
                )
                subtract_product(pull.T, hessian[:, inside], levels * step)
        decoded[:] = scales.qtensor(values, ()).decode()

    def visit_codes(self, values: Array, decoded: Array, pull: Array) -> None:
        """See `Road`."""
        order = self.factor.order
        steps = self.scales.of_columns(range(len(order)))
        visit_codes(values.T, decoded.T, pull.T, self.factor.hessian, steps, order, self.outputs)


def _extreme(x: Array) -> Array:
    """The number of the largest size in each row of `x` [rows, n], with its sign."""
    xp = namespace(x)
    high, low = xp.max(x, axis=-1), xp.min(x, axis=-1)
    return xp.where(high >= -low, high, low)


def _stored(x: Array, number: Number) -> Array:
    """The factors nearest to `x`; the smallest one where that would be 0."""
    xp, found = namespace(x), number.round(x)
    least = like(number.finest, x)
    return xp.where(found == 0, xp.where(x < 0, -least, least), found)
