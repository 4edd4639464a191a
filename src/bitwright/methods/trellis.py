"""Trellis codes under the layer's objective: Viterbi's algorithm along paths on which errors do not meet."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np
from pydantic import Field

from bitwright.core.array import Array, float32, like, namespace
from bitwright.core.format import Format
from bitwright.core.qtensor import QTensor
from bitwright.core.rotation import rotate
from bitwright.core.stats import Stats
from bitwright.core.trellis import Trellis
from bitwright.errors import RecipeError
from bitwright.methods import gptq, method
from bitwright.methods.descent import outputs as sides
from bitwright.methods.gptq import Factor
from bitwright.methods.method import Method
from bitwright.methods.rtn import deviations


class Options(method.Options):
    """Options of error feedback along both sides."""

    damping: float | None = Field(None, gt=0, le=1)
    """Share of the Hessian's mean diagonal added to it before it is factorised; None: columns per token."""
    output_damping: float = Field(0.3, gt=0, le=1)
    """Share of the mean curvature of the loss at the layer's outputs added to that of each, where it is known."""


def quantize(
    w: Array,
    format: Format,
    stats: Stats | None = None,
    *,
    damping: float | None = None,
    factor: Factor | None = None,
    curvature: Array | None = None,
    output_damping: float = 0.3,
) -> QTensor:
    """Trellis codes for `w` [rows, columns] that keep tr(G E H E^T) small, as `descent.quantize` has it.

    With H = U D U^T and G = V D' V^T that is the sum of D'_i D_k r_ik^2, r = V^T E U, and r_ik holds errors of rows up
    to i and columns up to k only. Weights of one anti-diagonal are therefore not in each other's r: the path of
    `Trellis` follows them, and the errors of those before are known, and made up for, when its next weights are
    chosen. H is that of the rotated inputs. Scales follow from the deviations of rows, made wider by what errors add.

    Sources: QTIP (Tseng et al. 2024, arXiv 2406.11235), whose paths run through tiles without feedback inside; the
    order is ours. Raises RecipeError without stats or for a format without a trellis, and what `gptq.factorise` and
    `outputs.weigh` raise.
    """
    wrong = fits(format)
    if wrong is not None:
        raise RecipeError(wrong, where="method trellis", fix="Choose trellis2 ... trellis4", key="layer.format")
    if stats is None:
        fix = "Give --calib, or use --method rtn"
        raise RecipeError("needs calibration data", where="method trellis", fix=fix, key="layer.method")
    factor = turned(stats, damping) if factor is None else factor
    outputs = None if curvature is None else sides.weigh(curvature, w.shape[0], output_damping)
    notes = factor.notes + (() if outputs is None else outputs.notes)
    if curvature is not None and outputs is None:
        notes += (sides.NO_SLOPE,)
    code, x, rows = format.code, _host(rotate(float32(w))), w.shape[0]
    assert isinstance(code, Trellis)
    upper, inputs = _host(factor.upper), _host(factor.rest)
    across = np.empty((0, 0), np.float32) if outputs is None else _host(outputs.upper)
    weight = np.ones(rows, np.float32) if outputs is None else _host(outputs.rest)
    wider = np.sqrt(1 + 4.0**-format.bits * (_spread(upper, inputs) * _spread(across, weight) - 1))
    scale = format.scale.round(deviations(w, format) * wider.item())
    own = _host(scale)[:, 0]
    weight = weight * own * own
    weight, inputs = weight / max(weight.max(), 1e-30), inputs / inputs.max()
    codes, error = np.zeros(x.shape, np.uint8), np.zeros_like(x)
    for block in code.blocks(rows):
        inside = across[block, block] if across.size else across
        base = x[block]
        if across.size:
            base = base + across[: block.start, block].T @ error[: block.start]
        codes[block], error[block] = code.follow(
            base, x[block], own[block], weight[block], inputs, np.ascontiguousarray(inside), upper
        )
    return QTensor(format, like(codes, w, namespace(w).uint8), scale, notes=notes)


def _host(x: Array) -> np.ndarray:
    """As a NumPy array in main memory: the loops run there."""
    found: np.ndarray = np.ascontiguousarray(np.asarray(x.cpu() if array_api_compat.is_torch_array(x) else x))
    return found


def _spread(upper: np.ndarray, rest: np.ndarray) -> float:
    """By how much errors of variance 1 grow that make up for those before them: the weighted mean of diag U^T U."""
    if not upper.size:
        return 1.0
    return float((upper * upper).sum(axis=0) @ rest / rest.sum())


def turned(stats: Stats, damping: float | None) -> Factor:
    """The factor of the rotated inputs' second moments."""
    moment = rotate(rotate(stats.moment).T).T
    return gptq.factorise(Stats(stats.n, (moment + moment.T) / 2), damping, "natural")


def fits(format: Format) -> str | None:
    """Why it cannot take a format; None where it can."""
    return None if isinstance(format.code, Trellis) else f"{format.name} has no trellis"


def prepare(stats: Stats, options: Any) -> Factor:
    """The factor that all matrices with one input share."""
    return turned(stats, options.damping)


METHOD = Method(
    name="trellis",
    title="Viterbi's algorithm with error feedback along both sides",
    source="Tseng et al. 2024, arXiv 2406.11235",
    solve=lambda w, f, seen, options: quantize(
        w,
        f,
        seen.stats,
        damping=options.damping,
        factor=seen.shared,
        curvature=seen.curvature,
        output_damping=options.output_damping,
    ),
    options=Options,
    needs="moments",
    moments=True,
    weighs=True,
    fits=fits,
    prepare=prepare,
    fallback="rtn",
)
