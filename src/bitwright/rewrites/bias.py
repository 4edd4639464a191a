"""Bias correction: rounding moves the mean of a layer's output, and the bias can move it back, for free.

Source: Nagel et al. 2019, arXiv 1906.04721, section 4.2. With eps = W^ - W, E[W^ x] = E[W x] + eps E[x].
"""

from __future__ import annotations

import math
from typing import Any

from bitwright.core.array import Array, float32, like, namespace
from bitwright.rewrites.rewrite import Rewrite, Rounded


def correction(error: Array, mean: Array, groups: int = 1) -> Array:
    """What to add to the bias, -eps E[x] [out], for `error` = W^ - W [out, in / groups * kernel].

    `mean` is E[x], [in * kernel] (unfolded inputs, so that padding counts) or [in] (every kernel position alike).
    """
    xp = namespace(error)
    out, columns = error.shape
    per_group = xp.reshape(float32(mean), (groups, 1, -1))
    kernel = columns // per_group.shape[-1]
    x = xp.reshape(float32(error), (groups, out // groups, -1, kernel))
    return -xp.reshape(xp.sum(xp.sum(x, axis=3) * per_group, axis=2), (-1,))


def empirical(wanted: Array, found: Array) -> Array:
    """What to add to the bias, E[y] - E[y^] [out], from the mean outputs of the float and the quantized layer.

    Measured with the quantized inputs, this also makes up for the errors of all layers before.
    """
    return float32(wanted) - float32(found)


def clipped_normal(mean: Array, deviation: Array, low: float = 0.0, high: float = math.inf) -> Array:
    """E[clip(z, low, high)] for z ~ N(mean, deviation^2), [channels]: the input of the next layer without any data.

    After batch norm and ReLU, mean = beta and deviation = |gamma| (appendix C of the paper):
    gamma phi(-beta / gamma) + beta (1 - Phi(-beta / gamma)); after ReLU6, high = 6.
    """
    return like([_clipped(float(m), abs(float(d)), low, high) for m, d in zip(mean, deviation, strict=True)], mean)


def _clipped(mean: float, deviation: float, low: float, high: float) -> float:
    if deviation == 0:
        return min(max(mean, low), high)
    a, b = (low - mean) / deviation, (high - mean) / deviation
    value = low * _below(a) if low > -math.inf else 0.0
    value += high * _below(-b) if high < math.inf else 0.0
    return value + mean * (_below(b) - _below(a)) + deviation * (_density(a) - _density(b))


def _density(z: float) -> float:
    """phi(z)."""
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _below(z: float) -> float:
    """Phi(z)."""
    return math.erfc(-z / math.sqrt(2)) / 2


def correct(layer: Rounded, settings: Any) -> Array | str | None:
    """What to add to a rounded layer's bias [rows] as the recipe says: from the samples, or from batch norm alone."""
    if settings.bias == "empirical":
        return empirical(*layer.means()) if layer.batches else None
    expected = layer.expected()
    if expected is None:
        return "no batch norm says what its input is: bias as it was"
    return float32(correction(layer.error, expected, layer.groups))


REWRITE = Rewrite(
    name="bias",
    title="Bias correction",
    source="Nagel et al. 2019, arXiv 1906.04721",
    asked=lambda settings: settings.bias != "none",
    correct=correct,
)
