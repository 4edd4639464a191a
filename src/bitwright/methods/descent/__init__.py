"""Coordinate descent on the layer's true objective, started from error feedback. The default."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from bitwright.core.array import Array
from bitwright.core.format import Format
from bitwright.core.qtensor import QTensor
from bitwright.core.stats import Stats
from bitwright.methods import gptq
from bitwright.methods.descent import outputs as sides
from bitwright.methods.descent import solver
from bitwright.methods.gptq import Factor
from bitwright.methods.method import Method


class Options(gptq.Options):
    """Options of error feedback, and of the refinement after it."""

    sweeps: int = Field(4, ge=0, le=100)
    """Rounds of refinement after error feedback."""
    output_damping: float = Field(0.3, gt=0, le=1)
    """Share of the mean curvature of the loss at the layer's outputs added to that of each, where it is known."""


def quantize(
    w: Array,
    format: Format,
    stats: Stats | None = None,
    *,
    damping: float | None = None,
    order: Literal["natural", "activation"] = "activation",
    sweeps: int = 4,
    factor: Factor | None = None,
    curvature: Array | None = None,
    output_damping: float = 0.3,
) -> QTensor:
    """Codes for `w` [rows, columns] by error feedback, then `sweeps` rounds of refinement of codes and scales.

    What falls is tr(G E H E^T), E = w - decoded, H = E[x x^T] of the inputs and G = `curvature` [rows, rows] = E[g g^T]
    of the slopes g of -log p at the outputs; G = I where it is not given, or with a note where it is all zeros. Each
    round gives every weight the best code with all others fixed; the first, and every third after it, before that moves
    each block's scale to its minimiser, as stored, where that lowers the objective. The objective never rises.

    With G = V D V^T, error feedback goes along rows too: row r is rounded for the target w_r + sum_{q<r} V[q, r] e_q.
    Compiled where numba is installed and the weights are in main memory. Else the same sums run in blocks of
    `outputs.ROWS` rows, and with G, errors are fed back between these alone, which a note says.

    Sources: cyclic coordinate descent as in QuantEase (Behdin et al. 2023, arXiv 2309.01885), from GPTQ; both sides of
    the objective as in K-FAC (Martens and Grosse 2015, arXiv 1503.05671). Raises RecipeError without stats or for a
    codebook, TensorError for a curvature that is not finite or of another shape, and what `gptq.factorise` raises.
    """
    gptq.require(format, stats, "descent")
    assert stats is not None
    factor = gptq.factorise(stats, damping, order) if factor is None else factor
    outputs = None if curvature is None else sides.weigh(curvature, w.shape[0], output_damping)
    q = solver.start(w, format, stats, factor, outputs)
    if curvature is not None and outputs is None:
        q = replace(q, notes=(*q.notes, sides.NO_SLOPE))
    return solver.refine(w, q, factor, sweeps, outputs)


LIBRARIES = 96 << 20
"""numba and LLVM, with the loops compiled (measured: 67 MiB from the cache, 104 where they are compiled anew)."""
METHOD = Method(
    name="descent",
    title="Error feedback, then coordinate descent on the layer's output error",
    source="Behdin et al. 2023, arXiv 2309.01885",
    solve=lambda w, f, seen, options: quantize(
        w,
        f,
        seen.stats,
        damping=options.damping,
        order=options.order,
        sweeps=options.sweeps,
        factor=seen.shared,
        curvature=seen.curvature,
        output_damping=options.output_damping,
    ),
    options=Options,
    needs="moments",
    moments=True,
    weighs=True,
    libraries=LIBRARIES,
    prepare=gptq.prepare,
    work=lambda options: 2.0 + options.sweeps,
    fallback="mse",
)
