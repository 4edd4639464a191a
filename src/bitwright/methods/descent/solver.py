"""Start and sweeps of the descent: the matrix products, and which loops run between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import array_api_compat
import numpy as np

from bitwright.core.array import Array, contiguous, float32, like, namespace
from bitwright.core.format import Format
from bitwright.core.qtensor import QTensor
from bitwright.core.stats import Stats
from bitwright.methods import gptq
from bitwright.methods.descent.blocks import visit_codes
from bitwright.methods.descent.outputs import ROWS, Outputs
from bitwright.methods.descent.scales import visit_scales
from bitwright.methods.gptq import BLOCK, Factor, Steps
from bitwright.methods.mse import search

RESCALE = 3
"""Sweeps over codes from one visit of the scales to the next, which costs more than all of them. Four sweeps with two
visits end within 1 % of what four visits reach, at 1 bit within 4 %."""
Loop = Callable[[slice, np.ndarray, np.ndarray, np.ndarray], None]
PLAIN = f"no compiled loops here (numba, on a processor): outputs make up for each other between blocks of {ROWS} only"


def compiled(x: Array) -> Any:
    """The compiled loops, or None where numba is absent or `x` is not in main memory."""
    if array_api_compat.is_torch_array(x) and x.device.type != "cpu":
        return None
    try:
        from bitwright.methods.descent import kernels
    except ImportError:
        return None
    return kernels


def start(w: Array, format: Format, stats: Stats, factor: Factor, outputs: Outputs | None) -> QTensor:
    """Error feedback along columns, and with `outputs` from row to row as well; scales are searched and stay."""
    if outputs is None:
        return gptq.quantize(w, format, stats, factor=factor)
    kernels = compiled(w)
    notes = factor.notes + outputs.notes
    if kernels is None:
        notes += (PLAIN,)
    xp, w = namespace(w), float32(w)
    scale, zero, outer = search(w, format, stats)
    q = QTensor(format, xp.zeros_like(w, dtype=xp.uint8), scale, zero, outer=outer, notes=notes)
    error = xp.zeros_like(w)
    steps = Steps.of(format, scale, zero, factor.order, *w.shape)
    numbers = None if kernels is None else kernels.Numbers.of(steps, w.shape[0])
    for first in range(0, w.shape[0], ROWS):
        rows = slice(first, min(first + ROWS, w.shape[0]))
        target = w[rows] + outputs.upper[:first, rows].T @ error[:first]
        if kernels is None:
            part = q if scale.shape[0] == 1 else q.part(rows.start, rows.stop)
            codes = gptq.feed_back(target, format, part.scale, part.zero, factor)
            error[rows] = w[rows] - replace(part, codes=codes).decode()
        else:
            codes = _feed_back(kernels, w, target, error, rows, format, numbers, factor, outputs)
        q.codes[rows] = codes
    return q


def _feed_back(
    kernels: Any,
    w: Array,
    target: Array,
    error: Array,
    rows: slice,
    format: Format,
    numbers: Any,
    factor: Factor,
    outputs: Outputs,
) -> Array:
    """Codes (uint8) of some rows, compiled, and their `error`: tiles of columns, with products between them."""
    xp = namespace(w)
    n = w.shape[1]
    x, own = (xp.take(part, factor.order, axis=1) for part in (target, w[rows]))
    values, miss, left = xp.zeros_like(x), xp.zeros_like(x), xp.zeros_like(x)
    upper, across = factor.upper, np.ascontiguousarray(np.asarray(outputs.upper[rows, rows]).T)
    for start in range(0, n, BLOCK):
        tile = slice(start, min(start + BLOCK, n))
        power, order = np.ones(tile.stop - start, np.float32), np.arange(tile.stop - start, dtype=np.uintp)
        carried = miss[:, :start] @ upper[:start, tile]
        parts = (x[:, tile], own[:, tile], upper[tile, tile])
        base, given, matrix = (np.ascontiguousarray(np.asarray(part)) for part in parts)
        found, decoded, felt = (np.empty_like(given) for _ in range(3))
        kernels.sweep(
            base, np.asarray(carried), power, matrix, order, found, decoded, given, across, felt,
            rows.start, *numbers.columns(start, tile.stop),
        )  # fmt: skip
        values[:, tile], left[:, tile], miss[:, tile] = (like(each, w) for each in (found, felt, base - decoded))
    back = xp.argsort(factor.order)
    error[rows] = xp.take(left, back, axis=1)
    return format.grid.nearest(xp.take(values, back, axis=1))


def refine(w: Array, q: QTensor, factor: Factor, sweeps: int, outputs: Outputs | None = None) -> QTensor:
    """`q` with better codes and scales for `w` [rows, columns]; see `descent.quantize`."""
    xp = namespace(w)
    rows, columns = w.shape
    natural = xp.arange(columns, dtype=xp.int64, device=w.device)
    steps = Steps.of(q.format, q.scale, q.zero, natural, rows, columns)
    kernels = compiled(w)
    # Columns of the transpose lie together for plain arrays, rows for the compiled loop.
    decoded, values = (
        contiguous(part.T).T if kernels is None else contiguous(part)
        for part in (q.decode(), q.format.grid.decode(q.codes))
    )
    pull = decoded * 0
    pull[:] = (float32(w) - decoded) @ factor.hessian
    for sweep in range(sweeps):
        if q.scale.shape[0] > 1 and sweep % RESCALE == 0:
            visit_scales(values.T, decoded.T, pull.T, factor.hessian, steps, q.outer, outputs)
        if kernels is None:
            visit_codes(values.T, decoded.T, pull.T, factor.hessian, steps, factor.order, outputs)
        else:
            sweep_codes(kernels, values, decoded, pull, steps, factor, outputs)
    scale = like(xp.asarray(like(steps.scale, w).T, copy=True), w)
    return replace(q, codes=contiguous(q.format.grid.nearest(values)), scale=scale)


def sweep_codes(
    kernels: Any,
    values: Array,
    decoded: Array,
    pull: Array,
    steps: Steps,
    factor: Factor,
    outputs: Outputs | None,
) -> None:
    """One compiled sweep over all codes."""
    rows, columns = values.shape
    numbers = kernels.Numbers.of(steps, rows)
    hessian, order = np.asarray(factor.hessian), np.asarray(factor.order).astype(np.uintp)
    power, none = np.ascontiguousarray(np.diagonal(hessian)), np.empty((0, 0), np.float32)

    def sweep(part: slice, force: np.ndarray, across: np.ndarray, felt: np.ndarray) -> None:
        found, dec = (np.asarray(each)[part] for each in (values, decoded))
        kernels.sweep(
            dec, force, power, hessian, order, found, dec, none, across, felt, part.start, *numbers.columns(0, columns)
        )

    visit_rows(sweep, pull, outputs)


def visit_rows(loop: Loop, pull: Array, outputs: Outputs | None) -> None:
    """Run a compiled `loop` over all rows, of `pull` = (x - decoded) H; with `outputs`, `ROWS` rows at a time.

    The loop gets the rows, the pull as their moves feel it, which it keeps up to date, the shares of moves that later
    ones of these rows feel, and where to tell what moves have changed, as `kernels.sweep` has it.
    """
    rows = pull.shape[0]
    size = rows if outputs is None else ROWS
    across = felt = np.empty((0, 0), np.float32)
    for first in range(0, rows, size):
        part = slice(first, min(first + size, rows))
        force = np.asarray(pull)[part]
        if outputs is not None:
            share = outputs.across(first, part.stop)
            across, felt = np.ascontiguousarray(np.asarray(share[:, part])), np.empty_like(force)
            force = force + np.asarray(share @ pull)
        loop(part, force, across, felt)
        if outputs is not None:
            pull[part] += like(felt, pull)
