"""Scale search: of many scales per block, the one with the smallest (weighted) squared error."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from bitwright.core.array import Array, float32, namespace
from bitwright.core.format import Format
from bitwright.core.grid import Grid
from bitwright.core.qtensor import QTensor, divisor, encode
from bitwright.core.scaling import rows_of
from bitwright.core.stats import Stats
from bitwright.methods.method import Method, fits_fixed
from bitwright.methods.rtn import affine, no_shifts, ranges

CHUNK = 1 << 20
"""Weights searched at once: the passes of one chunk stay in cache, and memory stays bounded."""


def quantize(w: Array, format: Format, stats: Stats | None = None, *, steps: int = 10, least: float = 0.5) -> QTensor:
    """Quantize `w` [rows, columns] with searched scales and nearest codes.

    Every block tries `steps` ranges between `least` and 1 times its own, wider ones where `shares` says so, and keeps
    the one that minimises sum_i p_i (w_i - w^_i)^2, where p is E[x^2] of the input (`stats.power`) or 1 without stats.
    Clipping a few outliers buys all other weights a finer step (the MSE-optimal clipping of Banner et al. 2019, arXiv
    1810.05723).
    """
    return encode(w, format, *_found(w, format, stats, steps, least))


def search(
    w: Array, format: Format, stats: Stats | None = None, *, steps: int = 10, least: float = 0.5
) -> tuple[Array, Array | None, tuple[Array, ...]]:
    """The best scale and zero (float32 [rows, groups], as stored) of `w` [rows, columns], and the outer factors.

    Raises RecipeError for a format with shifts.
    """
    if format.shift is not None:
        raise no_shifts(format)
    scale, zero, _, outer, _ = _found(w, format, stats, steps, least)
    return scale, zero, outer


def _found(w: Array, format: Format, stats: Stats | None, steps: int, least: float) -> tuple[Any, ...]:
    """Scale, zero, shift (float32 [rows, groups], as stored), and the outer factors of scales and of shifts."""
    xp = namespace(w)
    scale, _, shift = _wanted(format.blocks(float32(w)), format, 1.0)
    outer = format.scale.fit(scale)
    shift_outer = () if format.shift is None else format.shift.fit(shift)
    rows = w.shape[0] if format.block == "tensor" else max(1, CHUNK // w.shape[1])
    weight = _weight(stats, format, w.shape)
    parts = []
    for i in range(0, w.shape[0], rows):
        around = rows_of(outer, i, i + rows), rows_of(shift_outer, i, i + rows)
        parts.append(_search(format.blocks(float32(w[i : i + rows])), format, weight, around, steps, least))
    scale, zero, shift = (None if found[0] is None else xp.concat(found) for found in zip(*parts, strict=True))
    return scale, zero, shift, outer, shift_outer


def _wanted(x: Array, format: Format, shrink: float) -> tuple[Array, Array | None, Array | None]:
    """Scale, zero and shift, not yet rounded, that map the range of `x` [rows, groups, size] * `shrink` to the grid."""
    if format.shift is None:
        return *ranges(x, format, shrink), None
    scale, shift = affine(x, format, shrink)
    return scale, None, shift


def _weight(stats: Stats | None, format: Format, shape: tuple[int, int]) -> Array | None:
    """E[x^2] of each column in the shape of the blocks, [1, groups, size]; None for plain squared error."""
    if stats is None or format.block == "tensor":
        return None
    return format.blocks(stats.power[None, :])


def shares(grid: Grid, steps: int, least: float) -> list[float]:
    """The shares of a block's range that are tried: `steps` from 1 down to `least`, then wider ones at this distance.

    Those are for values at unequal distances, which have the widest gap below the outermost: a range may be so wide
    that its largest weight meets the second largest value, in FP4 the 4 and not the 6 (Cook et al. 2025, arXiv
    2512.02010).
    """
    step = (1 - least) / max(steps - 1, 1)
    found = [1 - (1 - least) * i / max(steps - 1, 1) for i in range(steps)]
    if not grid.uniform:
        *_, second, top = sorted({abs(value) for value in grid.ladder[0].tolist()})
        wider = math.ceil((top / second - 1) / step)
        found += [1 + (top / second - 1) * (i + 1) / wider for i in range(wider)]
    return found


def _search(
    x: Array, format: Format, weight: Array | None, outer: tuple[Any, Any], steps: int, least: float
) -> tuple[Array | None, ...]:
    """The best scale, zero and shift of `x` [rows, groups, size], given the outer factors of scales and of shifts."""
    xp = namespace(x)
    best: Array = None
    kept: tuple[Array | None, ...] = ()
    for share in shares(format.grid, steps, least):
        scale, zero, shift = _wanted(x, format, share)
        scale = format.scale.round(scale, outer[0])
        shift = None if format.shift is None else format.shift.round(shift, outer[1])
        error = (_round(x, format, scale, zero, shift) - x) ** 2
        loss = (error if weight is None else error * weight).sum(axis=-1)
        if best is None:
            best, kept = loss, (scale, zero, shift)
            continue
        better = loss < best
        best = xp.where(better, loss, best)
        pairs = zip((scale, zero, shift), kept, strict=True)
        kept = tuple(None if new is None else xp.where(better, new, old) for new, old in pairs)
    return kept


def _round(x: Array, format: Format, scale: Array, zero: Array | None, shift: Array | None) -> Array:
    """What `x` [rows, groups, size] becomes with these scales."""
    step = divisor(scale)[..., None]
    if shift is not None:
        low = shift[..., None]
        return format.grid.round((x - low) / step) * scale[..., None] + low
    if zero is None:
        return format.grid.round(x / step) * scale[..., None]
    return (format.grid.round(x / step + zero[..., None]) - zero[..., None]) * scale[..., None]


METHOD = Method(
    name="mse",
    title="Scales of the least squared error",
    source="Banner et al. 2019, arXiv 1810.05723",
    solve=lambda w, f, seen, options: quantize(w, f, seen.stats),
    moments=True,
    diagonal=True,
    fits=partial(fits_fixed, shifts=True),
)
