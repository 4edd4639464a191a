"""Coordinate descent on the layer's true objective, started from error feedback. The default."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from bitwright.core.array import Array, float32, light, like, namespace, subtract_product
from bitwright.core.format import Format
from bitwright.core.qtensor import QTensor
from bitwright.core.stats import Stats
from bitwright.methods import gptq
from bitwright.methods.gptq import BLOCK, Factor, Steps
from bitwright.methods.method import Method


class Options(gptq.Options):
    """Options of error feedback, and of the refinement after it."""

    sweeps: int = Field(1, ge=0, le=100)
    """Rounds of refinement after error feedback."""


def quantize(
    w: Array,
    format: Format,
    stats: Stats | None = None,
    *,
    damping: float | None = None,
    order: Literal["natural", "activation"] = "activation",
    sweeps: int = 1,
    factor: Factor | None = None,
) -> QTensor:
    """GPTQ's codes for `w` [rows, columns], then `sweeps` rounds of refinement of codes and scales.

    Each round visits every column once and gives every weight the code that minimises tr(E H E^T) with all others
    fixed, then moves each block's scale to its exact minimiser, as stored, where that lowers the objective. The
    objective never rises. Sources: cyclic coordinate descent as in QuantEase (Behdin et al. 2023, arXiv 2309.01885);
    start: GPTQ. Raises RecipeError without stats or for a codebook.
    """
    gptq.require(format, stats, "descent")
    assert stats is not None
    factor = gptq.factorise(stats, damping, order) if factor is None else factor
    return refine(w, gptq.quantize(w, format, stats, factor=factor), factor, sweeps)


def refine(w: Array, q: QTensor, factor: Factor, sweeps: int) -> QTensor:
    """`q` with better codes and scales for `w` [rows, columns] under `factor`; see `quantize`."""
    rows, columns = w.shape
    steps = Steps.of(q.format, q.scale, q.zero, factor.order, rows, columns)
    hessian, decoded = factor.hessian, gptq.in_order(q.decode(), factor.order)
    values = gptq.in_order(q.format.grid.decode(q.codes), factor.order)
    pull = hessian @ (gptq.in_order(float32(w), factor.order) - decoded)
    for _ in range(sweeps):
        if q.scale.shape[0] > 1:
            visit_scales(values, decoded, pull, hessian, steps, q.outer)
        visit_codes(values, decoded, pull, hessian, steps)
    scale = like(namespace(steps.scale).asarray(steps.scale.T, copy=True), w)
    return replace(q, codes=gptq.codes_of(values, q.format, factor.order), scale=scale)


def visit_codes(values: Array, decoded: Array, pull: Array, hessian: Array, steps: Steps) -> None:
    """One sweep over the columns, in place: `values`, `decoded` and `pull` = H (x - decoded) are [columns, rows].

    With all else fixed, the best real value of a weight is decoded + pull / H[i, i]; the grid value nearest to it is
    the best code, because the objective is a parabola in each weight.
    """
    xp = namespace(values)
    n, rows = values.shape
    power = [float(p) for p in xp.linalg.diagonal(hessian)]
    values_, decoded_, pull_, hessian_ = (light(each, rows) for each in (values, decoded, pull, hessian))
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        moved = xp.zeros_like(values[start:stop])
        moved_, inside = light(moved, rows), hessian_[start:stop, start:stop]
        for i in range(start, stop):
            k = i - start
            force = pull_[i] - inside[k, :k] @ moved_[:k] if k else pull_[i]
            values_[i], new = steps.round(decoded_[i] + force / power[i], i)
            moved_[k] = new - decoded_[i]
            decoded_[i] = new
        subtract_product(pull, hessian[:, start:stop], moved)


def visit_scales(
    values: Array, decoded: Array, pull: Array, hessian: Array, steps: Steps, outer: tuple[Array, ...]
) -> None:
    """Move each block's scale to the minimiser of the objective, in place, where the stored value lowers it.

    For a block with levels v = grid value - zero, the objective is a parabola in the scale: slope v^T pull,
    curvature v^T H v.
    """
    xp = namespace(values)
    groups = like(steps.group, values, xp.int64)
    scale, zero = like(steps.scale, values), None if steps.zero is None else like(steps.zero, values)
    for group in range(scale.shape[0]):
        inside = xp.nonzero(groups == group)[0]
        level = xp.take(values, inside, axis=0)
        if zero is not None:
            level = level - zero[group]
        block = xp.take(hessian, inside, axis=1)
        slope = (level * xp.take(pull, inside, axis=0)).sum(axis=0)
        curvature = (level * (xp.take(block, inside, axis=0) @ level)).sum(axis=0)
        old = scale[group]
        wanted = old + slope / curvature.clip(1e-30, None)
        around = tuple(factor[:, group * factor.shape[1] // scale.shape[0]] for factor in outer)
        new = steps.format.scale.round(xp.where(wanted * old > 0, wanted, old), around)
        step = new - old
        step = xp.where(step * (2 * slope - step * curvature) > 0, step, xp.zeros_like(step))
        scale[group] = xp.where(step == 0, old, new)  # old + step may be off by a rounding
        decoded[inside] = level * scale[group]
        subtract_product(pull, block, level * step)
    steps.scale[:] = light(scale, values.shape[1])


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
    ),
    options=Options,
    needs="moments",
    moments=True,
    prepare=gptq.prepare,
    work=lambda options: 2.0 + options.sweeps,
    fallback="mse",
)
