"""How much each output of a layer counts, and error feedback from output to output."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bitwright.core.array import Array, float32, namespace
from bitwright.errors import TensorError
from bitwright.methods.gptq import upper_factor

ROWS = 64
"""Outputs that are visited together: between such blocks all goes by matrix products."""
NO_SLOPE = "the loss does not depend on its outputs: every output counts alike"


@dataclass(frozen=True)
class Outputs:
    """G + damping * mean(diag G) * I, and V, unit upper triangular, and diag D of G = V D V^T: [rows, rows], [rows]."""

    curvature: Array
    upper: Array
    rest: Array
    notes: tuple[str, ...] = ()

    def across(self, start: int, stop: int) -> Array:
        """G_ij / G_ii for the rows i from `start` to `stop` and all j, 0 for i = j."""
        xp = namespace(self.curvature)
        part = self.curvature[start:stop]
        share = part / xp.linalg.diagonal(part[:, start:stop])[:, None]
        at = xp.arange(stop - start, dtype=xp.int64, device=share.device)
        share[at, start + at] = 0.0
        return share


def weigh(curvature: Array, rows: int, damping: float) -> Outputs | None:
    """The outputs of a matrix of so many rows, from `curvature` = E[g g^T]; None where that is all zeros.

    Raises TensorError for a curvature of another shape, one that is not finite, or is indefinite beyond rounding.
    """
    xp = namespace(curvature)
    if tuple(curvature.shape) != (rows, rows):
        raise TensorError(f"the curvature of its {rows} outputs has shape {list(curvature.shape)}")
    curvature = xp.asarray(float32(curvature), copy=True)
    mean = float(xp.linalg.diagonal(curvature).sum()) / rows
    if not (math.isfinite(mean) and bool(xp.all(xp.isfinite(curvature)))):
        raise TensorError(
            "the slopes of the loss at its outputs are not finite",
            fix="Look for huge weights in the layers after it, or keep it float by a rule",
        )
    if not bool(xp.any(curvature != 0)):
        return None
    upper, rest, used = upper_factor(curvature, damping, mean, "the curvature of the loss at its outputs is indefinite")
    notes = () if used == damping else (f"singular curvature of outputs: damping raised from {damping:g} to {used:g}",)
    return Outputs(curvature, upper, rest, notes)
