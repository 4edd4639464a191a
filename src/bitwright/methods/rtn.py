"""Round to nearest: scales from the range of each block, codes from rounding. Needs no data."""

from __future__ import annotations

from bitwright.core.array import Array, float32, namespace
from bitwright.core.format import Format
from bitwright.core.qtensor import QTensor, encode
from bitwright.core.rotation import rotate
from bitwright.core.stats import Stats
from bitwright.errors import RecipeError
from bitwright.methods.method import Method, fits_fixed


def quantize(w: Array, format: Format, stats: Stats | None = None) -> QTensor:
    """Quantize `w` [rows, columns] with the range of each block: scale = max|w| / top, or (max - min) / levels.

    Where the code suits a standard deviation, the scale is that of each block over it.

    Source: the standard affine quantizer (Jacob et al. 2018, arXiv 1712.05877). `stats` is not used.
    """
    if format.code.suits is not None:
        return encode(w, format, format.scale.round(deviations(w, format)))
    if format.shift is not None:
        scale, shift = affine(format.blocks(float32(w)), format)
        outer, shift_outer = format.scale.fit(scale), format.shift.fit(shift)
        scale, shift = format.scale.round(scale, outer), format.shift.round(shift, shift_outer)
        return encode(w, format, scale, shift=shift, outer=outer, shift_outer=shift_outer)
    scale, zero = ranges(format.blocks(float32(w)), format)
    outer = format.scale.fit(scale)
    return encode(w, format, format.scale.round(scale, outer), zero, outer=outer)


def deviations(w: Array, format: Format) -> Array:
    """Scales (float32 [rows, groups]) by which the blocks of `w` [rows, columns], rotated, suit the code."""
    x = format.blocks(rotate(float32(w)) if format.rotated else float32(w))
    return (x * x).mean(axis=-1) ** 0.5 / format.code.suits


def fits(format: Format) -> str | None:
    """Why it cannot take a format; None where it can."""
    return None if format.code.suits is not None else fits_fixed(format, shifts=True)


def ranges(x: Array, format: Format, shrink: Array | float = 1.0) -> tuple[Array, Array | None]:
    """Scale and zero (float32 [rows, groups]) that map the range of `x` [rows, groups, size] * `shrink` to the grid.

    The range always holds 0, so that 0 stays exact. An asymmetric integer zero is a value of the grid; a symmetric
    integer scale is negative where the positive tail is the longer one, and so is that of any other grid that reaches
    further down than up. Raises RecipeError for a format with shifts.
    """
    if format.shift is not None:
        raise no_shifts(format)
    xp = namespace(x)
    grid = format.grid
    high, low = xp.max(x, axis=-1) * shrink, xp.min(x, axis=-1) * shrink
    if format.zero is None:
        if grid.low < -grid.high and format.scale.signed:
            # Two's complement has one more negative level: a negative scale gives it to the longer tail.
            return xp.where(high > -low, -high, -low) / -grid.low, None
        return xp.maximum(high, -low) / grid.high, None
    high, low = xp.clip(high, 0.0, None), xp.clip(low, None, 0.0)
    scale = (high - low) / (grid.high - grid.low)
    safe = xp.where(scale > 0, scale, xp.ones_like(scale))
    return scale, format.zero.round(grid.low - low / safe)


def no_shifts(format: Format) -> RecipeError:
    """The error of a method that chooses scales alone, told of a format with shifts."""
    return RecipeError(
        f"{format.name} stores shifts, which this method cannot choose", where="format",
        fix="Use the method rtn or mse, or a format without shifts such as q6_k or int4", key="layer.format",
    )  # fmt: skip


def affine(x: Array, format: Format, shrink: Array | float = 1.0) -> tuple[Array, Array]:
    """Scale and shift (float32 [rows, groups]) that map the range of `x` [rows, groups, size] * `shrink` to the grid.

    The shift goes to the lowest value, of a grid that counts from 0. It is never above 0 where blocks share its sign.
    """
    xp = namespace(x)
    high, low = xp.max(x, axis=-1) * shrink, xp.min(x, axis=-1) * shrink
    if format.shift is not None and not format.shift.signed:
        low = xp.clip(low, None, 0.0)
    return (high - low) / format.grid.high, low


METHOD = Method(
    name="rtn",
    title="Round to nearest",
    source="Jacob et al. 2018, arXiv 1712.05877",
    solve=lambda w, f, seen, options: quantize(w, f),
    fits=fits,
)
