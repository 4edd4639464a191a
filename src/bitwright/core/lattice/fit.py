"""Stored factors that bring given codes within all borders."""

from __future__ import annotations

from bitwright.core.array import Array, float32, namespace
from bitwright.core.lattice.borders import DIGITS, Borders
from bitwright.core.qtensor import divisor
from bitwright.core.scaling import Number

NEAR = 16
"""Half steps between stored numbers, on either side of a fitted shift, that are tried; half, because below a power of
two numbers are twice as close."""


def range_of(b: Borders, x: Array, shift: Array | float) -> tuple[Array, Array]:
    """Between which factors (float64 [blocks]) factor * x + shift stays within all borders; none where low > high.

    1 to 1 where no weight says anything about it.
    """
    xp = namespace(x)
    low, high = b.low - shift, b.high - shift
    safe, far = xp.where(x == 0, xp.ones_like(x), x), xp.full_like(x, float("inf"))
    one, other = low / safe, high / safe
    used = (x != 0) & xp.isfinite(low)
    least = xp.max(xp.where(used, xp.minimum(one, other), -far), axis=-1)
    most = xp.min(xp.where(used, xp.maximum(one, other), far), axis=-1)
    unmet = xp.any((x == 0) & ((low > 0) | (high < 0)), axis=-1)
    free, unit = xp.isinf(least), xp.ones_like(least)
    least, most = xp.where(free, unit, least), xp.where(free, unit, most)
    return least, xp.where(unmet, least - 1, most)


def least_squares(b: Borders, x: Array, z: Array, most: float | None = None) -> tuple[Array, Array]:
    """d and e <= `most` (float64 [blocks]) of the least sum of squares of d x + e z - w over the borders' distance."""
    xp, weight = namespace(x), _weight(b)
    w = xp.astype(b.w, xp.float64)
    xx, xz, zz, xw, zw = (xp.sum(weight * product, axis=-1) for product in (x * x, x * z, z * z, x * w, z * w))
    det = xx * zz - xz * xz
    alone = det <= 1e-12 * xx * zz
    e = xp.where(alone, zw / divisor(zz), (xx * zw - xz * xw) / xp.where(alone, xp.ones_like(det), det))
    e = e if most is None else xp.clip(e, None, most)
    return (xw - e * xz) / divisor(xx), e


def _weight(b: Borders) -> Array:
    """How much the square of an error counts: that of the widest borders' distance over that of its own borders'."""
    xp, distance = namespace(b.w), b.distance
    widest = xp.max(distance, axis=-1)[:, None]
    return xp.where(distance > 0, widest / xp.maximum(distance, 1e-6 * widest), xp.zeros_like(distance)) ** 2


def _hopeful(b: Borders, x: Array, z: Array, d: Array, e: Array) -> Array:
    """Whether any factors may do where `d` and `e` are those of least squares, bool [blocks].

    Factors within all borders have errors below their distance; the least sum of squares is no larger. Twice of that is
    left for rounding.
    """
    xp, distance = namespace(x), b.distance
    off = d[:, None] * x + e[:, None] * z - xp.astype(b.w, xp.float64)
    most = xp.sum(xp.astype(distance > 0, xp.float64), axis=-1) * xp.max(distance, axis=-1) ** 2
    return xp.sum(_weight(b) * off * off, axis=-1) <= 4 * most


def fitted_factors(
    b: Borders, q: Array, small: Array | None, z: Array | None, number: Number
) -> tuple[Array, Array, Array]:
    """d and e, as `number` holds them, and whether d * small * q + e * z, in float32, rounds to the weights: [blocks].

    `q`, `small` and `z` float32 [blocks, size]; without `z` e is 0, without `small` that is 1.
    """
    xp = namespace(q)
    x = xp.astype(q if small is None else q * small, xp.float64)
    d, e = xp.ones_like(q[:, 0]), xp.zeros_like(q[:, 0])
    ok = xp.zeros(q.shape[:1], dtype=xp.bool, device=q.device)
    left = xp.arange(q.shape[0], device=q.device)
    fitted, step = xp.zeros_like(d), xp.zeros_like(d)
    if z is not None:
        slope, best = least_squares(b, x, xp.astype(z, xp.float64))
        left = xp.nonzero(_hopeful(b, x, z, slope, best))[0]
        best = xp.where(xp.all(z == 0, axis=-1), -xp.ones_like(best), best)
        fitted = xp.astype(number.round(float32(best)), xp.float64)
        digits, least = DIGITS[number.name]
        exponent = xp.clip(xp.astype(xp.frexp(fitted)[1], xp.float64) - 1, float(least), None)
        step = 2.0 ** (exponent - digits - 1)
    for near in range(1 if z is None else 2 * NEAR + 1):
        if not left.shape[0]:
            break
        every = left.shape[0] == q.shape[0]
        here = b if every else b[left]
        xs, qs = (x, q) if every else (x[left], q[left])
        shift, added = 0.0, 0.0
        if z is not None:
            away = (near + 1) // 2 * (1 if near % 2 else -1)
            tried = number.round(float32(fitted[left] + away * step[left]))
            added = tried[:, None] * z[left]
            shift = xp.astype(added, xp.float64)
            e[left] = tried
        low, high = range_of(here, xs, shift)
        done = xp.zeros_like(ok[left])
        for point in (0.5, 0.0, 1.0):  # a number on a border may round to the neighbour
            factor = number.round(float32(low + point * (high - low)))
            scale = factor[:, None] if small is None else factor[:, None] * small[left]
            good = here.met(qs * scale + added) & ~done
            d[left[good]] = factor[good]
            done = done | good
            if xp.all(done | (low > high)):
                break
        ok[left] = done
        left = left[~done]
    return d, e, ok
