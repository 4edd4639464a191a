"""Blocks of small blocks, whose scales are whole multiples of a factor."""

from __future__ import annotations

from typing import Any

from bitwright.core.array import Array, float32, like, namespace
from bitwright.core.format import Format
from bitwright.core.lattice.borders import Borders
from bitwright.core.lattice.fit import fitted_factors
from bitwright.core.lattice.parts import Parts
from bitwright.core.qtensor import divisor
from bitwright.core.scaling import Number

RANKS = 12
"""Factors around small scales that are tried."""
FILLED = 1 << 19
"""Numbers of combinations that are held at once."""


def nested(b: Borders, format: Format) -> tuple[Any, ...] | None:
    """Codes, scales, shifts and their factors of blocks with small scales; None where one block has none."""
    xp, inner = namespace(b.w), format.scale.levels[0]
    n, size = b.w.shape[0], int(inner.block)
    count = b.w.shape[1] // size
    parts = Parts.of(b.split(count), format)
    if parts is None:
        return None
    wanted = xp.reshape(parts.scale, (n, count))
    lowered = xp.reshape(parts.shift, (n, count))
    sure = xp.reshape(parts.sure, (n, count))
    codes = xp.reshape(parts.codes, (n, count, size))
    small, least = xp.ones_like(float32(wanted)), xp.zeros_like(float32(wanted))
    d, e = xp.ones_like(b.w[:, 0]), xp.zeros_like(b.w[:, 0])
    left = xp.arange(n, device=b.w.device)
    shifts = None if format.shift is None else format.shift.levels[0].number
    # Where not all of a grid is used, its lowest value may not be: at second sight nothing of such blocks is sure.
    used = (xp.max(codes, axis=-1) == len(format.grid.values) - 1) | (format.shift is None)
    largest = xp.abs(wanted) == xp.max(xp.abs(wanted), axis=-1)[:, None]
    for scales, depths in ((sure, xp.ones_like(sure)), (sure & used, sure & used)):
        if not left.shape[0]:
            break
        certain = scales | (largest & ~xp.any(scales & (wanted != 0), axis=-1)[:, None])
        factors = _factors(wanted, certain, inner.number)
        below = None if shifts is None else _factors(lowered, depths, shifts)
        for i, j in _pairs(shifts is not None):
            factor = factors[left, i], None if below is None else below[left, j]
            tried = _tried(b[left], format, *factor, codes[left], wanted[left], lowered[left], certain[left])
            ok = tried[-1]
            won = left[ok]
            codes[won], small[won], least[won], d[won], e[won] = (found[ok] for found in tried[:-1])
            left = left[~ok]
            if not left.shape[0]:
                break
    if left.shape[0]:
        return None
    if not format.scale.zeros:
        small = xp.where(small == 0, xp.ones_like(small), small)  # of a block of zeros
    if format.shift is None:
        return codes, d[:, None] * small, None, None, d, None
    return codes, d[:, None] * small, None, e[:, None] * least, d, e


def _pairs(shifted: bool) -> list[tuple[int, int]]:
    """Which of the likeliest factors of scales and of shifts are tried together."""
    if not shifted:
        return [(i, 0) for i in range(RANKS)]
    return [(i, total - i) for total in range(RANKS) for i in range(total + 1)]


def _factors(wanted: Array, sure: Array, number: Number) -> Array:
    """The likeliest factors (float64 [blocks, RANKS]) of which `wanted` [blocks, count] are whole multiples.

    The largest of those that are sure is one of the numbers of its type. In eighths of how far the others are from
    whole multiples then; of equals first the factor by which all of the type's range is used, then the largest ones.
    """
    xp = namespace(wanted)
    known = xp.where(sure, wanted, xp.zeros_like(wanted))
    high, low = xp.max(known, axis=-1), xp.min(known, axis=-1)
    most = int(max(number.high, -number.low))
    signs = (-1, 1) if number.low < 0 else (1,)
    values = [float(sign * size) for size in range(1, most + 1) for sign in signs]
    order = [0 if value == signs[0] * most else abs(value) for value in values]
    factor = divisor(xp.where(high >= -low, high, low))[:, None] / like(values, wanted, xp.float64)
    multiple = known[:, None, :] / factor[:, :, None]
    off = xp.max(xp.abs(multiple - xp.round(multiple)), axis=-1)
    rank = xp.floor(8 * off) * 2 * most + like(order, wanted, xp.float64)
    return xp.take_along_axis(factor, xp.argsort(rank, axis=-1, stable=True)[:, :RANKS], axis=-1)


def _tried(
    b: Borders,
    format: Format,
    factor: Array,
    below: Array | None,
    codes: Array,
    wanted: Array,
    lowered: Array,
    sure: Array,
) -> tuple[Array, ...]:
    """Codes, small scales, small shifts, the factors of both and whether they mean the weights, of some blocks.

    `codes` [blocks, count, size]; `wanted` scales and `lowered` shifts [blocks, count] are about multiples of `factor`
    and `below` [blocks].
    """
    xp = namespace(codes)
    size = codes.shape[-1]
    inner, number = format.scale.levels[0].number, format.scale.levels[1].number
    multiple = xp.round(wanted / factor[:, None])
    if inner.low < 0 and format.grid.uniform:
        # One more small scale is negative than positive: signs of codes and scale may be both the other way round.
        over = (multiple > inner.high) & xp.all(codes > 0, axis=-1)
        multiple = xp.where(over, -multiple, multiple)
        codes = xp.where(over[..., None], -2 * int(format.grid.low) - codes, codes)
    small = float32(multiple.clip(inner.low, inner.high))
    least = xp.zeros_like(small)
    if below is not None:
        least = float32(xp.round(lowered / below[:, None]).clip(0.0, inner.high))

    def fit(b: Borders, codes: Array, small: Array, least: Array) -> tuple[Array, Array, Array]:
        q = format.grid.decode(xp.reshape(codes, (codes.shape[0], -1)))
        z = None if format.shift is None else xp.repeat(least, size, axis=-1)
        return fitted_factors(b, q, xp.repeat(small, size, axis=-1), z, number)

    hidden = xp.repeat(~sure, size, axis=-1)
    d, e, ok = fit(b.without(hidden), codes, small, least)
    again = xp.nonzero(ok & xp.any(~sure, axis=-1))[0]
    if again.shape[0]:
        chosen = tuple(x[again] for x in (codes, small, least, sure))
        filled = _filled(b[again].split(codes.shape[1]), format, d[again], e[again], *chosen)
        codes[again], small[again], least[again] = filled
        d[again], e[again], ok[again] = fit(b[again], *filled)
    return codes, small, least, d, e, ok


def _filled(
    b: Borders, format: Format, d: Array, e: Array, codes: Array, small: Array, least: Array, sure: Array
) -> tuple[Array, Array, Array]:
    """Codes, small scales and small shifts, where those that are not sure are the best of all that there are."""
    xp = namespace(codes)
    n, count, size = codes.shape
    scales, shifts = _all(format.scale.levels[0].number, small), like([0.0], small)
    if format.shift is not None:
        shifts = _all(format.shift.levels[0].number, small)
    unsure = xp.nonzero(~xp.reshape(sure, (-1,)))[0]
    codes, small, least = xp.reshape(codes, (-1, size)), xp.reshape(small, (-1,)), xp.reshape(least, (-1,))
    step = max(1, FILLED // (size * scales.shape[0] * shifts.shape[0]))
    for start in range(0, unsure.shape[0], step):
        here = unsure[start : start + step]
        part = b[here]
        scale = (d[here // count][:, None] * scales)[:, :, None, None]
        shift = (e[here // count][:, None] * shifts)[:, None, :, None]
        found = format.grid.nearest((part.w[:, None, None, :] - shift) / divisor(scale))
        value = xp.astype(format.grid.decode(found) * scale + shift, xp.float64)
        middle, half = (part.low + part.high) / 2, (part.high - part.low) / 2
        off = xp.max(xp.abs(value - middle[:, None, None, :]) / half[:, None, None, :], axis=-1)
        best = xp.argmin(xp.reshape(off, (here.shape[0], -1)), axis=-1)
        found = xp.reshape(found, (here.shape[0], -1, size))
        codes[here] = found[xp.arange(here.shape[0], device=best.device), best]
        small[here], least[here] = scales[best // shifts.shape[0]], shifts[best % shifts.shape[0]]
    return xp.reshape(codes, (n, count, size)), xp.reshape(small, (n, count)), xp.reshape(least, (n, count))


def _all(number: Number, x: Array) -> Array:
    """All whole numbers of a type, float32, the largest first."""
    return like([float(i) for i in range(int(number.high), int(number.low) - 1, -1)], x)
