"""SmoothQuant: move the outliers of an activation's channels into the weights that read them.

Source: Xiao et al. 2023, arXiv 2211.10438, equation 4. W x = (W diag(s)) (diag(s)^-1 x): where a layer cannot write
x / s itself (behind a normalisation its gain can), a multiplication is left in the network.
"""

from __future__ import annotations

from collections.abc import Sequence

from bitwright.core.array import Array, float32, namespace
from bitwright.core.format import Format
from bitwright.core.observe import affine
from bitwright.methods import rtn
from bitwright.methods.equalize import column_ranges, multiply_columns

LIMIT = 1000.0
"""No channel is scaled by more than this, or less than its inverse."""
ALPHAS = (0.0, 0.25, 0.4, 0.5, 0.6, 0.75, 0.85, 1.0)


def factors(peak: Array, weights: Sequence[Array], alpha: float = 0.5, *, groups: int = 1) -> Array:
    """s_j = max|x_j|^alpha / max|w_j|^(1 - alpha) [in], for `peak` = max|x_j| and matrices [out, in / groups * kernel].

    Divide x by it and multiply the columns of all `weights` that read x (`equalize.multiply_columns`). alpha = 1 moves
    all difficulty into the weights, 0 all into the activation. A channel that is dead on either side keeps s = 1.
    """
    xp = namespace(peak)
    column = column_ranges(weights[0], int(peak.shape[0]), groups)
    for w in weights[1:]:
        column = xp.maximum(column, column_ranges(w, int(peak.shape[0]), groups))
    peak = float32(peak)
    live, one = (peak > 0) & (column > 0), xp.ones_like(peak)
    s = xp.where(live, peak, one) ** alpha / xp.where(live, column, one) ** (1 - alpha)
    return xp.clip(s, 1 / LIMIT, LIMIT)


def search(
    x: Array, weights: Sequence[Array], format: Format, *, bits: int = 8, alphas: Sequence[float] = ALPHAS
) -> tuple[Array | None, float, float]:
    """(s, alpha, gain): the exponent with the least output error on the samples `x` [tokens, in], s None for none.

    The error is E|W x - Q(W s) Q(x / s)|^2 over all `weights` [out, in], rounded to nearest in `format`, the activation
    to `bits` bits over its range; `gain` is the error without s over that with it. s is None where nothing helps.
    """
    xp = namespace(x)
    x = float32(x)
    peak = xp.max(xp.abs(x), axis=0)
    wanted = [x @ float32(w).T for w in weights]

    def error(s: Array | None) -> float:
        scaled = x if s is None else x / s
        q = affine(float(xp.min(scaled)), float(xp.max(scaled)), bits).fake(scaled)
        total = 0.0
        for w, y in zip(weights, wanted, strict=True):
            decoded = rtn.quantize(w if s is None else multiply_columns(w, s), format).decode()
            total += float(xp.sum((q @ decoded.T - y) ** 2))
        return total

    plain = error(None)
    tried = [(error(s), alpha, s) for alpha in alphas for s in [factors(peak, weights, alpha)]]
    best, alpha, s = min(tried, key=lambda t: t[0])
    return (s, alpha, plain / best) if best < plain else (None, 0.0, 1.0)
