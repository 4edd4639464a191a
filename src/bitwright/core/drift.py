"""Corrected targets: weights that make up for what the inputs have lost on their way through quantized layers.

The float layer answers W x. Behind quantized layers its twin is fed x_hat instead, and the best it can answer is

    W* x_hat,   W* = W + (W C + R) H^-1,   H = E[x_hat x_hat^T],   C = E[(x - x_hat) x_hat^T],

a regression of the float answer on the inputs that there are. Where the answer is added to a stream r that has lost
something too, R = E[(r - r_hat) x_hat^T] makes up for that as well. A method then rounds W* instead of W.

Fitted on few tokens, a regression learns them by heart. So each part is damped by a ridge and shrunk by a share, and
both are chosen where they can be judged: fitted on one half of the tokens, scored on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bitwright.core.array import Array, divide, float32, like, namespace
from bitwright.core.cholesky import cholesky
from bitwright.core.stats import Stats
from bitwright.errors import TensorError

ROWS = 128
"""Rows of a matrix by which ridges and shares are chosen, at most: those of a large one, evenly taken, say the same."""
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""What is tried as a ridge, in mean diagonals of H."""


@dataclass(frozen=True)
class Drift:
    """Sums over some tokens: of their inputs x_hat in `stats`, `cross` of (x - x_hat) x_hat^T [columns, columns].

    `residual` is the sum of (r - r_hat) x_hat^T [rows, columns]; None where the answer is added to nothing.
    """

    stats: Stats
    cross: Array
    residual: Array | None = None

    def __add__(self, other: Drift) -> Drift:
        both = None
        if self.residual is not None and other.residual is not None:
            both = self.residual + other.residual
        return Drift(self.stats + other.stats, self.cross + other.cross, both)


@dataclass(frozen=True)
class Choice:
    """How a part of a correction was fitted: its ridge in mean diagonals of H, and the share of it that is used.

    `gain` is by how much of what the part could explain the other half's error falls, 0 to 1.
    """

    ridge: float
    share: float
    gain: float


Factors = dict[tuple[int, float], Array]
"""Cholesky factors of damped second moments, by half (2: both) and ridge: all weights with one input share them."""


def aim(w: Array, halves: tuple[Drift, Drift], factors: Factors | None = None) -> tuple[Array, list[Choice]]:
    """W* for rows `w` [rows, columns], from what two halves of the tokens saw, and how each of its parts was fitted.

    The first choice is for C, the second for R where there is one. `factors` is filled, and used again for the same
    inputs; without it one factor at a time is kept.
    """
    wide = float32(w)
    lost = [[wide @ half.cross for half in halves]]
    residuals = [half.residual for half in halves if half.residual is not None]
    return make_up(w, [half.stats for half in halves], lost + [residuals] * (len(residuals) == len(halves)), factors)


def make_up(
    w: Array, stats: Sequence[Stats], lost: Sequence[Sequence[Array]], factors: Factors | None = None
) -> tuple[Array, list[Choice]]:
    """W* for rows `w` [rows, columns], from the `stats` of two halves, and how each part was fitted.

    A part of `lost` holds for each half the sum over its tokens of what the answer lost, times x_hat^T [rows, columns].
    Each half is fitted on and scored on in turn; a part that explains nothing of the other half has a share of 0. All
    arrays may have an axis before the others, for matrices with inputs of their own (groups of a convolution), which
    are fitted alike. Rows of zeros stay zero: such an output was taken out on purpose.
    """
    xp = namespace(w)
    count = sum(half.n for half in stats)
    parts = [[each / count for each in part] for part in lost]
    hessians = [half.moment / count for half in stats]
    judged = [[each[..., :: -(-w.shape[-2] // ROWS), :] for each in part] for part in parts]
    target, choices = float32(w), _choose(judged, hessians, w.shape[-1] / max(count, 1), factors)
    used = float32(xp.any(w != 0, axis=-1, keepdims=True))
    for part, choice in zip(parts, choices, strict=True):
        if choice.share > 0:
            whole = divide(part[0] + part[1], _factor(hessians[0] + hessians[1], choice.ridge, factors, 2))
            target = target + choice.share * used * whole
    return xp.astype(target, w.dtype), choices


def describe(choices: Sequence[Choice]) -> str:
    """What `aim` did, in words: `inputs 85 % at ridge 0.1, residual 40 % at ridge 0.3`."""
    told = [
        f"{part} {choice.share:.0%} at ridge {choice.ridge:g}".replace("%", " %")
        for part, choice in zip(("inputs", "residual"), choices, strict=False)
        if choice.share > 0
    ]
    return ", ".join(told) or "nothing holds on the other half of the tokens"


def _choose(
    parts: Sequence[Sequence[Array]], hessians: Sequence[Array], thin: float, factors: Factors | None
) -> list[Choice]:
    """For each part the ridge and share with which it explains most of the half that it was not fitted on.

    `thin` is columns per token: the search starts at a ridge of about that and goes on while a score rises. A ridge is
    tried on all parts at once, so that no factor need be kept.
    """
    tried: dict[int, list[Choice]] = {}
    start = min(range(len(RIDGES)), key=lambda i: abs(RIDGES[i] - 2.5 * thin))

    def score(i: int, part: int) -> float:
        if i not in tried:
            tried[i] = _cross(parts, hessians, RIDGES[i], factors)
        return tried[i][part].gain

    found = []
    for part in range(len(parts)):
        best = start
        for step in (1, -1):
            while 0 <= best + step < len(RIDGES) and score(best + step, part) > score(best, part):
                best += step
        score(best, part)
        found.append(tried[best][part])
    return found


def _cross(
    parts: Sequence[Sequence[Array]], hessians: Sequence[Array], ridge: float, factors: Factors | None
) -> list[Choice]:
    """What each part explains with one ridge, and its best share: fitted on each half, scored on the other."""
    along, power = [0.0] * len(parts), [0.0] * len(parts)
    for half in (0, 1):
        factor = _factor(hessians[half], ridge, factors, half)
        for i, part in enumerate(parts):
            fitted = divide(part[half], factor)
            along[i] += float((fitted * part[1 - half]).sum())
            power[i] += float(((fitted @ hessians[1 - half]) * fitted).sum())
    shares = [min(max(a / max(p, 1e-30), 0.0), 1.0) for a, p in zip(along, power, strict=True)]
    return [Choice(ridge, s, 2 * s * a - s * s * p) for s, a, p in zip(shares, along, power, strict=True)]


def _factor(hessian: Array, ridge: float, factors: Factors | None, half: int) -> Array:
    """The lower Cholesky factor of H + ridge * mean(diag H) * I, kept in `factors` where there are."""
    if factors is not None and (half, ridge) in factors:
        return factors[half, ridge]
    xp = namespace(hessian)
    mean = xp.mean(xp.linalg.diagonal(hessian), axis=-1)[..., None, None]
    ridges = xp.where(mean > 0, ridge * mean, xp.ones_like(mean))
    lower = _lower(hessian, ridges, like(np.eye(hessian.shape[-1]), hessian))
    if factors is not None:
        factors[half, ridge] = lower
    return lower


def _lower(hessian: Array, ridges: Array, whole: Array) -> Array:
    """The lower Cholesky factor of H + ridge I, with larger ridges for those matrices that this leaves indefinite.

    Sums about a mean are differences: of inputs that hardly vary, their rounding is what is left.
    """
    xp = namespace(hessian)
    while (lower := cholesky(hessian + ridges * whole)) is None:
        if hessian.ndim > 2:  # each as far as it needs
            return xp.stack([_lower(h, r, whole) for h, r in zip(hessian, ridges, strict=True)])
        if not bool(xp.all(xp.isfinite(ridges))):
            raise TensorError("the second moments of its inputs are not finite", fix="Keep it float by a rule")
        ridges = 2 * ridges
    return lower
