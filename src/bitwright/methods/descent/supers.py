"""Start and sweeps for formats with factors or shifts: the matrix products between the loops over rows."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from bitwright.core.array import Array, contiguous, float32, namespace
from bitwright.core.qtensor import QTensor
from bitwright.methods.descent import solver
from bitwright.methods.descent.outputs import Outputs
from bitwright.methods.descent.plain import Plain
from bitwright.methods.descent.stored import Scales
from bitwright.methods.descent.structure import Structure
from bitwright.methods.gptq import Factor


class Road(Protocol):
    """How rows are solved: by compiled loops or by plain arrays."""

    rows: int
    """Rows whose start goes together."""
    notes: tuple[str, ...]

    def begin(self, part: slice, tile: slice, base: Array, own: Array, carried: Array) -> tuple[Array, Array, Array]:
        """Choose scales and codes of one super-block of some rows, the columns `tile` of the order of visits.

        The target of a weight is base + carried, and what earlier errors of its row in the tile add; `own` are the
        weights. All are [rows, width], as are the answers: grid values, base - decoded as its row felt it, and
        own - decoded.
        """

    def visit_scales(self, values: Array, decoded: Array, pull: Array) -> None:
        """Better scales, in place, of all rows; `pull` = (w - decoded) H."""

    def visit_codes(self, values: Array, decoded: Array, pull: Array) -> None:
        """Better codes, in place, of all rows."""


def quantize(w: Array, structure: Structure, factor: Factor, outputs: Outputs | None, sweeps: int) -> QTensor:
    """Codes, scales and shifts for `w` [rows, columns]; see `descent.quantize`.

    Raises ValueError for a `factor` whose order tears blocks apart.
    """
    order = factor.order
    for size in (structure.width, structure.size):
        blocks = namespace(order).reshape(order // size, (-1, size))
        if bool((blocks != blocks[:, :1]).any()):
            raise ValueError(f"a factor for {structure.format.name} visits whole blocks of {size} columns")
    w = float32(w)
    kernels = solver.compiled(w)
    scales = Scales.empty(structure, w if kernels is None else np.asarray(w))
    road: Road
    if kernels is None:
        road = Plain(scales, factor, outputs, w.shape[0])
    else:
        from bitwright.methods.descent.loops import Loops

        road = Loops(scales, factor, outputs)
    notes = (*factor.notes, *(() if outputs is None else outputs.notes), *road.notes)
    values = start(w, road, factor, outputs, structure.width)
    decoded = scales.qtensor(values, ()).decode()
    if kernels is None:  # where its loops over columns find them together
        values, decoded = (contiguous(part.T).T for part in (values, decoded))
    pull = decoded * 0
    pull[:] = (w - decoded) @ factor.hessian
    for _ in range(sweeps):
        road.visit_scales(values, decoded, pull)
        road.visit_codes(values, decoded, pull)
    return scales.qtensor(values, notes)


def start(w: Array, road: Road, factor: Factor, outputs: Outputs | None, width: int) -> Array:
    """Grid values [rows, columns] by error feedback, along columns and with `outputs` from row to row."""
    xp = namespace(w)
    found, back = xp.empty_like(w), xp.argsort(factor.order)
    error = w[:, :0] if outputs is None else xp.zeros_like(w)
    for first in range(0, w.shape[0], road.rows):
        part = slice(first, min(first + road.rows, w.shape[0]))
        own = base = xp.take(w[part], factor.order, axis=1)
        if outputs is not None:
            base = own + outputs.upper[:first, part].T @ error[:first]
        values, miss = xp.empty_like(own), xp.zeros_like(own)
        for begin in range(0, w.shape[1], width):
            tile = slice(begin, begin + width)
            carried = miss[:, :begin] @ factor.upper[:begin, tile]
            values[:, tile], miss[:, tile], left = road.begin(part, tile, base[:, tile], own[:, tile], carried)
            if outputs is not None:
                error[part, tile] = left
        found[part] = xp.take(values, back, axis=1)
    return found
