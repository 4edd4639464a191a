"""Rows solved by compiled loops. Imported where they run, and only there."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from bitwright.core.array import Array, like
from bitwright.methods.descent import kernels, rows, solver
from bitwright.methods.descent.outputs import ROWS, Outputs
from bitwright.methods.descent.stored import Scales
from bitwright.methods.gptq import Factor


class Loops:
    """A `Road`: every row by itself, `ROWS` of them between two matrix products."""

    rows = ROWS
    notes: tuple[str, ...] = ()

    def __init__(self, scales: Scales, factor: Factor, outputs: Outputs | None) -> None:
        """Fills `scales`, which are NumPy arrays."""
        self.scales, self.factor, self.outputs = scales, factor, outputs
        self.structure, self.rules = scales.structure, scales.structure.rules()
        self.order = np.asarray(factor.order)

    def begin(self, part: slice, tile: slice, base: Array, own: Array, carried: Array) -> tuple[Array, Array, Array]:
        """See `Road`."""
        size, scales = self.structure.size, self.scales
        target, given, upper = (np.array(np.asarray(x), order="C") for x in (base, own, self.factor.upper[tile, tile]))
        across = felt = np.empty((0, 0), np.float32)
        if self.outputs is not None:
            across, felt = np.ascontiguousarray(np.asarray(self.outputs.upper[part, part]).T), np.empty_like(given)
        value, decoded = np.empty_like(given), np.empty_like(given)
        wide, blocks = self.order[tile.start] // self.structure.width, self.order[tile][::size] // size
        factor, around = np.ones((2, len(given)), np.float32)
        scale, level = np.ones((2, len(given), len(blocks)), np.float32)
        rows.begin(
            target, given, np.asarray(carried), upper, np.asarray(self.factor.rest)[tile], across, felt, value,
            decoded, self.rules, size, factor, around, scale, level,
        )  # fmt: skip
        scales.factor[part, wide], scales.around[part, wide] = factor, around
        scales.scale[part, blocks], scales.level[part, blocks] = scale, level
        found = (value, target - decoded, given - decoded)
        return tuple(like(each, base) for each in found)  # type: ignore[return-value]

    def visit_scales(self, values: Array, decoded: Array, pull: Array) -> None:
        """See `Road`."""
        scales, hessian = self.scales, np.asarray(self.factor.hessian)

        def improve(part: slice, force: np.ndarray, across: np.ndarray, felt: np.ndarray) -> None:
            found, dec = (np.asarray(each)[part] for each in (values, decoded))
            rows.improve(
                found, dec, force, hessian, self.order, *self._inside, across, felt, self.rules, self.structure.width,
                scales.factor[part], scales.around[part], scales.scale[part], scales.level[part],
            )  # fmt: skip

        solver.visit_rows(improve, pull, self.outputs)

    def visit_codes(self, values: Array, decoded: Array, pull: Array) -> None:
        """See `Road`."""
        steps = self.scales.of_columns(np.arange(len(self.order)))
        solver.sweep_codes(kernels, values, decoded, pull, steps, self.factor, self.outputs)

    @cached_property
    def _inside(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """H^-1, U and D of each block alone, in the order of visits: [blocks, size, size], and [blocks, size]."""
        places, hessian = self.order.reshape(-1, self.structure.size), np.asarray(self.factor.hessian)
        near = hessian[places[:, :, None], places[:, None, :]].astype(np.float64)
        root = np.linalg.cholesky(near[:, ::-1, ::-1])[:, ::-1, ::-1]
        sizes = np.diagonal(root, axis1=1, axis2=2)
        found = (np.linalg.inv(near), root / sizes[:, None, :], sizes**2)
        return tuple(np.ascontiguousarray(each, np.float32) for each in found)  # type: ignore[return-value]
