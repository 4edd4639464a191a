"""Scale search: of many scales per block, the one with the smallest (weighted) squared error."""

from __future__ import annotations

from bitwright.core.array import Array, float32, namespace
from bitwright.core.format import Format
from bitwright.core.qtensor import QTensor, divisor, encode
from bitwright.core.scaling import rows_of
from bitwright.core.stats import Stats
from bitwright.methods.method import Method
from bitwright.methods.rtn import ranges

CHUNK = 1 << 20
"""Weights searched at once: the passes of one chunk stay in cache, and memory stays bounded."""


def quantize(w: Array, format: Format, stats: Stats | None = None, *, steps: int = 10, least: float = 0.5) -> QTensor:
    """Quantize `w` [rows, columns] with searched scales and nearest codes.

    Every block tries `steps` ranges between `least` and 1 times its own and keeps the one that minimises
    sum_i p_i (w_i - w^_i)^2, where p is E[x^2] of the input (`stats.power`) or 1 without stats. Clipping a few
    outliers buys all other weights a finer step (the MSE-optimal clipping of Banner et al. 2019, arXiv 1810.05723).
    """
    scale, zero, outer = search(w, format, stats, steps=steps, least=least)
    return encode(w, format, scale, zero, outer=outer)


def search(
    w: Array, format: Format, stats: Stats | None = None, *, steps: int = 10, least: float = 0.5
) -> tuple[Array, Array | None, tuple[Array, ...]]:
    """The best scale and zero (float32 [rows, groups], as stored) of `w` [rows, columns], and the outer factors."""
    xp = namespace(w)
    outer = format.scale.fit(ranges(format.blocks(float32(w)), format)[0])
    rows = w.shape[0] if format.block == "tensor" else max(1, CHUNK // w.shape[1])
    weight = _weight(stats, format, w.shape)
    pieces = ((w[i : i + rows], rows_of(outer, i, i + rows)) for i in range(0, w.shape[0], rows))
    parts = [_search(format.blocks(float32(x)), format, weight, around, steps, least) for x, around in pieces]
    zeros = [zero for _, zero in parts if zero is not None]
    return xp.concat([scale for scale, _ in parts]), xp.concat(zeros) if zeros else None, outer


def _weight(stats: Stats | None, format: Format, shape: tuple[int, int]) -> Array | None:
    """E[x^2] of each column in the shape of the blocks, [1, groups, size]; None for plain squared error."""
    if stats is None or format.block == "tensor":
        return None
    return format.blocks(stats.power[None, :])


def _search(
    x: Array, format: Format, weight: Array | None, outer: tuple[Array, ...], steps: int, least: float
) -> tuple[Array, Array | None]:
    xp = namespace(x)
    best = None
    for step in range(steps):
        shrink = 1 - (1 - least) * step / max(steps - 1, 1)
        scale, zero = ranges(x, format, shrink)
        scale = format.scale.round(scale, outer)
        error = (_round(x, format, scale, zero) - x) ** 2
        loss = (error if weight is None else error * weight).sum(axis=-1)
        if best is None:
            best, best_scale, best_zero = loss, scale, zero
            continue
        better = loss < best
        best = xp.where(better, loss, best)
        best_scale = xp.where(better, scale, best_scale)
        best_zero = None if zero is None else xp.where(better, zero, best_zero)
    return best_scale, best_zero


def _round(x: Array, format: Format, scale: Array, zero: Array | None) -> Array:
    """What `x` [rows, groups, size] becomes with these scales."""
    step = divisor(scale)[..., None]
    if zero is None:
        return format.grid.round(x / step) * scale[..., None]
    return (format.grid.round(x / step + zero[..., None]) - zero[..., None]) * scale[..., None]


METHOD = Method(
    name="mse",
    title="Scales of the least squared error",
    source="Banner et al. 2019, arXiv 1810.05723",
    solve=lambda w, f, seen, options: quantize(w, f, seen.stats),
    moments=True,
)
