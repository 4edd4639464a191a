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
from bitwright.methods.descent import solver, structure, supers
from bitwright.methods.gptq import Factor
from bitwright.methods.method import Method, fits_fixed


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
    Where blocks share factors of their scales, or have shifts (`structure.suits`: GGUF's K types and more), all these
    numbers are chosen as their turn comes: factors for the target of a whole super-block, the numbers of each block for
    its own target just before it is rounded, and both anew in every sweep. Scales and shifts take any sign that their
    types have.

    Compiled where numba is installed and the weights are in main memory. Else the same sums run in blocks of
    `outputs.ROWS` rows, and with G, errors are fed back between these alone; and the numbers of blocks that share
    factors are chosen once. Notes say so.

    Sources: cyclic coordinate descent as in QuantEase (Behdin et al. 2023, arXiv 2309.01885), from GPTQ; both sides of
    the objective as in K-FAC (Martens and Grosse 2015, arXiv 1503.05671). Raises RecipeError without stats or for a
    codebook, TensorError for a curvature that is not finite or of another shape, and what `gptq.factorise` raises.
    """
    gptq.require(format, stats, "descent")
    assert stats is not None
    factor = factorise(stats, format, damping, order) if factor is None else factor
    outputs = None if curvature is None else sides.weigh(curvature, w.shape[0], output_damping)
    if structure.suits(format):
        q = supers.quantize(w, structure.Structure(format, w.shape[1]), factor, outputs, sweeps)
    else:
        q = solver.refine(w, solver.start(w, format, stats, factor, outputs), factor, sweeps, outputs)
    if curvature is not None and outputs is None:
        q = replace(q, notes=(*q.notes, sides.NO_SLOPE))
    return q


def factorise(stats: Stats, format: Format, damping: float | None = None, order: str = "activation") -> Factor:
    """The factor of the damped Hessian with columns in an order that `format` can be solved in.

    In "activation" order the columns that share a factor or a scale stay together where these are chosen as their turn
    comes (`structure.suits`). Raises what `gptq.factorise` raises.
    """
    if order == "natural" or not structure.suits(format):
        return gptq.factorise(stats, damping, order)
    columns = stats.power.shape[0]
    return gptq.factorise(stats, damping, structure.Structure(format, columns).order(stats.power))


class Factors:
    """The factors of one input's second moments, made when a format first asks: their order depends on its blocks."""

    def __init__(self, stats: Stats, options: Options) -> None:
        self._stats, self._options = stats, options
        self._made: tuple[Format, Factor] | None = None

    def of(self, format: Format) -> Factor:
        """The one for `format`; the last one is kept. Raises what `gptq.factorise` raises."""
        if self._made is None or self._made[0] != format:
            self._made = None  # as wide as the layer, squared: not two at a time
            self._made = format, factorise(self._stats, format, self._options.damping, self._options.order)
        return self._made[1]


def fits(format: Format) -> str | None:
    """Why it cannot take a format; None where it can."""
    return None if structure.suits(format) else fits_fixed(format)


LIBRARIES = 112 << 20
"""numba and LLVM, with the loops compiled (measured: 105 MiB from the cache, 110 to 115 with those of formats with
factors or shifts, which take 76 more the one time they are compiled)."""
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
        factor=None if seen.shared is None else seen.shared.of(f),
        curvature=seen.curvature,
        output_damping=options.output_damping,
    ),
    options=Options,
    needs="moments",
    moments=True,
    diagonal=True,
    weighs=True,
    libraries=LIBRARIES,
    fits=fits,
    prepare=Factors,
    work=lambda options: 2.0 + options.sweeps,
    fallback="mse",
)
