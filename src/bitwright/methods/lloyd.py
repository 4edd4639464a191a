"""Lloyd-Max: a codebook of 2^bits free values per tensor, channel or group, fitted to the weights by k-means.

Sources: Max 1960, "Quantizing for minimum distortion"; Lloyd 1982, "Least squares quantization in PCM"; the weighting
by the Hessian's diagonal is SqueezeLLM's (arXiv 2306.07629); the start is Panter and Dite's point density (1951).

In one dimension every cell is an interval, so each block is sorted once and summed once; a round is then
O(levels log n): find the cells' borders by bisection, take their means as differences of two running sums.
"""

from __future__ import annotations

import math

from bitwright.core.array import Array, float32, namespace
from bitwright.core.code import middles, rank
from bitwright.core.format import Format
from bitwright.core.qtensor import QTensor
from bitwright.core.stats import Stats
from bitwright.errors import RecipeError
from bitwright.methods.method import Method

CHUNK = 1 << 22
"""Weights sorted at a time (about 40 bytes each); one codebook for more weights than this is fitted on a sample."""

EVERY = 4
"""Rounds from one moving of levels to the next."""


def quantize(w: Array, format: Format, stats: Stats | None = None, *, rounds: int = 60) -> QTensor:
    """Quantize `w` [rows, columns] with fitted codebooks (`table` float32 [rows, groups, levels], rounded to fp16).

    Minimises sum_c h_c (w - w^)^2 over each block, h_c = E[x_c^2] of input c from `stats`, or 1 without. Stops after
    `rounds` or at a fixed point. The result is deterministic; a table ascends, and every code is the nearest value.
    """
    wrong = fits(format)
    if wrong is not None:
        raise RecipeError(wrong, where="method lloyd", fix="Choose one of codebook1 ... codebook8", key="layer.format")
    xp = namespace(w)
    x = format.blocks(float32(w))
    rows, groups, size = x.shape
    importance = None if stats is None else _importance(stats.power)
    levels = 2**format.bits
    if format.block == "tensor":
        flat, h = _sample(xp.reshape(x, (1, -1)), importance, int(w.shape[1]))
        tables = [xp.reshape(fit(flat, h, levels, rounds), (1, 1, levels))]
    else:
        step = max(1, CHUNK // (groups * size))
        h = None if importance is None else xp.reshape(importance, (1, groups, size))
        tables = []
        for i in range(0, rows, step):
            part = x[i : i + step]
            each = None if h is None else xp.reshape(xp.broadcast_to(h, part.shape), (-1, size))
            table = fit(xp.reshape(part, (-1, size)), each, levels, rounds)
            tables.append(xp.reshape(table, (-1, groups, levels)))
    table = tables[0] if len(tables) == 1 else xp.concat(tables, axis=0)
    return nearest(w, format, table)


def nearest(w: Array, format: Format, table: Array) -> QTensor:
    """The QTensor whose codes are the nearest values of `table` [rows or 1, groups or 1, levels], ascending."""
    xp = namespace(w)
    codes = format.code.nearest(format.blocks(float32(w)), table)
    one = xp.ones(table.shape[:2], dtype=xp.float32, device=table.device)
    return QTensor(format, xp.reshape(codes, w.shape), one, table=table)


def fit(x: Array, weight: Array | None, levels: int, rounds: int) -> Array:
    """Codebooks float32 [blocks, levels], ascending, rounded to fp16, of `x` float32 [blocks, n] weighted by `weight`.

    Lloyd's rounds, and after every fourth one levels of little use move to where they gain more (see `_move`): no cell
    stays empty while another spans different values, and the poor local optima of outliers and uneven weights are left.
    """
    xp = namespace(x)
    n = x.shape[1]
    if weight is None:
        x, h = xp.sort(x, axis=-1), xp.ones_like(x)
    else:
        order = xp.argsort(x, axis=-1)
        x, h = xp.take_along_axis(x, order, axis=-1), xp.take_along_axis(weight, order, axis=-1)
        del order
    h = xp.astype(h, xp.float64)
    mass = xp.cumulative_sum(h, axis=-1, include_initial=True)
    h *= x
    moment = xp.cumulative_sum(h, axis=-1, include_initial=True)
    del h

    table = _start(x, mass, levels)
    first = xp.zeros((x.shape[0], 1), dtype=xp.int64, device=x.device)
    before = None
    for i in range(rounds):
        ends = xp.concat([first, rank(x, middles(table), above=True), first + n], axis=1)
        if i % EVERY == 1 and bool(xp.all(ends == before)):
            break
        before = ends
        total, mean = _cells(mass, moment, ends[:, :-1], ends[:, 1:], table)
        table = mean if i % EVERY else _move(x, mass, moment, ends, total, mean)
    half = xp.astype(xp.clip(table, -65504.0, 65504.0), xp.float16)
    return xp.sort(xp.astype(half, xp.float32), axis=-1)


def _move(x: Array, mass: Array, moment: Array, ends: Array, total: Array, mean: Array) -> Array:
    """The means, after moving levels of little use into cells that gain more from a second one.

    Splitting a cell at its mean gains exactly a b / (a + b) (left mean - right mean)^2 for masses a and b; dropping a
    level costs at most its mass times the squared distance to its neighbour, nothing where the cell is empty. All empty
    levels move at once; else one does, where no neighbour is involved, so that the error always falls.
    """
    xp = namespace(x)
    levels = mean.shape[1]
    cut = xp.minimum(xp.maximum(rank(x, mean, above=True), ends[:, :-1]), ends[:, 1:])
    a, left = _cells(mass, moment, ends[:, :-1], cut, mean)
    b, right = _cells(mass, moment, cut, ends[:, 1:], mean)
    gain = a * b / xp.where(total > 0, total, xp.ones_like(total)) * xp.astype(left - right, xp.float64) ** 2
    far = xp.full((mean.shape[0], 1), 3e38, dtype=xp.float64, device=x.device)
    gap = xp.concat([far, xp.astype(mean[:, 1:] - mean[:, :-1], xp.float64), far], axis=1)
    cost = total * xp.minimum(gap[:, 1:], gap[:, :-1]) ** 2

    split = xp.argsort(-gain, axis=-1, stable=True)
    index = xp.arange(levels, dtype=xp.int64, device=x.device)[None, :]
    touches = (xp.abs(index - split[:, :1]) <= 1) & (total > 0)
    drop = xp.argsort(xp.where(touches, 1e300 + cost, cost), axis=-1, stable=True)
    price, prize = xp.take_along_axis(cost, drop, axis=-1), xp.take_along_axis(gain, split, axis=-1)
    apart = xp.abs(drop - split) > 1
    good = (prize > price * 1.001) & ((price == 0) | ((index == 0) & apart))
    if not bool(xp.any(good)):
        return mean
    splits = xp.take_along_axis(good, xp.argsort(split, axis=-1), axis=-1)
    order = xp.argsort(drop, axis=-1)
    moves = xp.take_along_axis(good, order, axis=-1)
    new = xp.take_along_axis(right, xp.take_along_axis(split, order, axis=-1), axis=-1)
    return xp.sort(xp.where(moves, new, xp.where(splits, left, mean)), axis=-1)


def _cells(mass: Array, moment: Array, first: Array, last: Array, otherwise: Array) -> tuple[Array, Array]:
    """Mass float64 and mean float32 of the sorted weights `first` to `last` (exclusive), `otherwise` if none."""
    xp = namespace(mass)
    total = xp.take_along_axis(mass, last, axis=-1) - xp.take_along_axis(mass, first, axis=-1)
    sums = xp.take_along_axis(moment, last, axis=-1) - xp.take_along_axis(moment, first, axis=-1)
    mean = xp.astype(sums / xp.where(last > first, total, xp.ones_like(total)), xp.float32)
    return total, xp.where(last > first, mean, otherwise)


def _start(x: Array, mass: Array, levels: int) -> Array:
    """First levels, dense as p^(1/3): over slices of sorted weights, mass^(1/3) width^(2/3) adds up to p^(1/3) dx."""
    xp = namespace(x)
    n = x.shape[1]
    slices = min(n, 32 * levels)
    at = xp.arange(slices + 1, dtype=xp.int64, device=x.device) * n // slices
    share = xp.take(mass, at, axis=1)
    share = share[:, 1:] - share[:, :-1]
    border = xp.astype(xp.take(x, xp.clip(at, 0, n - 1), axis=1), xp.float64)
    density = xp.cumulative_sum(share ** (1 / 3) * (border[:, 1:] - border[:, :-1]) ** (2 / 3), axis=-1)
    wanted = (xp.arange(levels, dtype=xp.float64, device=x.device) + 0.5) / levels * density[:, -1:]
    found = xp.clip(rank(density, wanted), 0, slices - 1)
    return xp.astype(xp.take_along_axis(border, found, axis=-1), xp.float32)


def _importance(power: Array) -> Array:
    """E[x^2] over its mean; inputs that never fired keep a little weight, so that their weights stay near too."""
    xp = namespace(power)
    mean = xp.mean(power)
    return xp.where(mean > 0, power / xp.where(mean > 0, mean, xp.ones_like(mean)), xp.ones_like(power)) + 1e-6


def _sample(x: Array, importance: Array | None, columns: int) -> tuple[Array, Array | None]:
    """About CHUNK of the weights [1, n] and their importance: each k-th, k prime to `columns` to meet every input."""
    xp = namespace(x)
    n = x.shape[1]
    k = -(-n // CHUNK)
    while math.gcd(k, columns) > 1:
        k += 1
    if importance is None:
        return x[:, ::k], None
    at = xp.arange(0, n, k, dtype=xp.int64, device=x.device) % columns
    return x[:, ::k], xp.reshape(xp.take(importance, at, axis=0), (1, -1))


def fits(format: Format) -> str | None:
    """Why there is no codebook to fit; None where there is one."""
    return None if format.code.table_bits else f"{format.name} has fixed values, so there is no codebook to fit"


METHOD = Method(
    name="lloyd",
    title="Codebooks by k-means (Lloyd-Max)",
    source="Max 1960; Lloyd 1982; weighted as in SqueezeLLM, arXiv 2306.07629",
    solve=lambda w, f, seen, options: quantize(w, f, seen.stats),
    moments=True,
    diagonal=True,
    fits=fits,
)
