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
from bitwright.core.stats import Stats

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

    The first choice is for C, the second for R where there is one. Each half is fitted on and scored on in turn. A
    part that explains nothing of the other half has a share of 0. `factors` is filled, and used again for the same
    inputs.
    """
    xp = namespace(w)
    wide = float32(w)
    count = sum(half.stats.n for half in halves)
    parts = [[wide @ half.cross / count for half in halves]]
    if all(half.residual is not None for half in halves):
        parts.append([half.residual / count for half in halves])  # type: ignore[operator]
    hessians = [half.stats.moment / count for half in halves]
    target, choices = wide, []
    factors = {} if factors is None else factors
    for part in parts:
        choice = _choose(part, hessians, wide.shape[1] / max(count, 1), factors)
        if choice.share > 0:
            key = 2, choice.ridge
            if key not in factors:
                factors[key] = _factor(hessians[0] + hessians[1], choice.ridge)
            whole = divide(part[0] + part[1], factors[key])
            target = target + choice.share * whole
        choices.append(choice)
    return xp.astype(target, w.dtype), choices


def _choose(part: Sequence[Array], hessians: Sequence[Array], thin: float, factors: Factors) -> Choice:
    """The ridge and share with which a part explains most of the half that it was not fitted on.

    `thin` is columns per token: the search starts at a ridge of about that and goes on while the score rises. `factors`
    keeps the factors of both halves by ridge.
    """
    tried: dict[int, Choice] = {}

    def score(i: int) -> float:
        if i not in tried:
            along = power = 0.0
            for half in (0, 1):
                key = half, RIDGES[i]
                if key not in factors:
                    factors[key] = _factor(hessians[half], RIDGES[i])
                fitted = divide(part[half], factors[key])
                along += float((fitted * part[1 - half]).sum())
                power += float(((fitted @ hessians[1 - half]) * fitted).sum())
            share = min(max(along / max(power, 1e-30), 0.0), 1.0)
            tried[i] = Choice(RIDGES[i], share, 2 * share * along - share * share * power)
        return tried[i].gain

    best = min(range(len(RIDGES)), key=lambda i: abs(RIDGES[i] - 2.5 * thin))
    for step in (1, -1):
        while 0 <= best + step < len(RIDGES) and score(best + step) > score(best):
            best += step
    score(best)
    return tried[best]


def _factor(hessian: Array, ridge: float) -> Array:
    """The lower Cholesky factor of H + ridge * mean(diag H) * I."""
    xp = namespace(hessian)
    mean = float(xp.linalg.diagonal(hessian).mean())
    return xp.linalg.cholesky(hessian + (ridge * mean or 1.0) * like(np.eye(hessian.shape[0]), hessian))
