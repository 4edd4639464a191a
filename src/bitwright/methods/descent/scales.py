"""Scales that move to the minimiser of the objective, as they are stored."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bitwright.core.array import Array, like, namespace, subtract_product
from bitwright.methods.descent.outputs import Outputs
from bitwright.methods.gptq import Steps

STEPS = 15
"""Conjugate gradients: of the scales of one group of columns in all rows that meet through G."""


def visit_scales(
    values: Array,
    decoded: Array,
    pull: Array,
    hessian: Array,
    steps: Steps,
    outer: tuple[Array, ...],
    outputs: Outputs | None = None,
) -> None:
    """Move each block's scale to the minimiser of the objective, in place, where the stored values lower it.

    All of `values`, `decoded` and `pull` = H (x - decoded) are [columns, rows]. For levels L = values - zero of one
    group of columns, the objective is a parabola in the scales of its rows: slope sum_j L_jr (pull G)_jr, curvature
    G o (L^T H L). Without `outputs`, G = I, each scale goes by itself.
    """
    scale, zero = like(steps.scale, values), None if steps.zero is None else like(steps.zero, values)
    groups = scale.shape[0]
    size = values.shape[0] // groups
    for group in range(groups):
        inside = slice(group * size, (group + 1) * size)
        level = values[inside] if zero is None else values[inside] - zero[group]
        around = tuple(factor[:, group * factor.shape[1] // groups] for factor in outer)
        scale[group], step = moved(
            level, scale[group], partial(steps.format.scale.round, outer=around), pull, hessian, inside, outputs
        )
        decoded[inside] = level * scale[group]
        subtract_product(pull, hessian[:, inside], level * step)
    steps.scale[:] = like(scale, steps.scale)


def moved(
    level: Array,
    old: Array,
    round: Callable[[Array], Array],
    pull: Array,
    hessian: Array,
    inside: slice,
    outputs: Outputs | None,
) -> tuple[Array, Array]:
    """What becomes of the factors `old` [rows] of `level` [columns inside, rows], and by how much they have moved.

    `round` makes of wanted factors those that can be stored.
    """
    xp = namespace(level)
    product = hessian[inside, inside] @ level
    if outputs is None:
        slope, curvature = (level * pull[inside]).sum(axis=0), (level * product).sum(axis=0)
        wanted = old + slope / curvature.clip(1e-30, None)
    else:
        slope = (level * (pull[inside] @ outputs.curvature)).sum(axis=0)
        curvature = outputs.curvature * (level.T @ product)
        wanted = old + solve(curvature, slope)
    new = round(xp.where(wanted * old > 0, wanted, old))
    step = new - old
    keep = step * (2 * slope - step * curvature) > 0 if outputs is None else falling(step, slope, curvature)
    return xp.where(keep, new, old), xp.where(keep, step, xp.zeros_like(step))  # old + step may be off by a rounding


def solve(curvature: Array, slope: Array) -> Array:
    """s with curvature s = slope, about: `STEPS` conjugate gradients, preconditioned by the diagonal.

    Source: Hestenes and Stiefel 1952.
    """
    xp = namespace(slope)
    scaled = 1 / xp.linalg.diagonal(curvature).clip(1e-30, None)
    found = xp.zeros_like(slope)
    rest = xp.asarray(slope, copy=True)
    direction = scaled * rest
    size = first = float(rest @ direction)
    for _ in range(STEPS):
        if not size > 1e-6 * first:
            break
        image = curvature @ direction
        curve = float(direction @ image)
        if not curve > 0:
            break
        found = found + (size / curve) * direction
        rest = rest - (size / curve) * image
        better = scaled * rest
        size, before = float(rest @ better), size
        direction = better + (size / before) * direction
    return found


def falling(step: Array, slope: Array, curvature: Array) -> Array:
    """Which of the rounded steps to take so that the objective falls: all, those that fall alone, or none."""
    xp = namespace(step)
    alone = step * (2 * slope - step * xp.linalg.diagonal(curvature)) > 0
    for keep in (step != 0, alone):
        part = xp.where(keep, step, xp.zeros_like(step))
        if float(part @ (2 * slope - curvature @ part)) > 0:
            return keep
    return xp.zeros_like(alone)
