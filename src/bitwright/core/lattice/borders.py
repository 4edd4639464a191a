"""Between which numbers the float lay that was rounded to a stored weight."""

from __future__ import annotations

from dataclasses import dataclass

from bitwright.core.array import Array, like, namespace
from bitwright.core.scaling import NUMBERS

DIGITS = {"fp32": (23, -126), "fp16": (10, -14), "bf16": (7, -126)}
"""Bits after the leading one of a stored weight, and the least exponent."""


@dataclass(frozen=True)
class Borders:
    """Weights `w` float32 [blocks, size], and the range float64 `low` ... `high` that is rounded to each."""

    w: Array
    low: Array
    high: Array
    source: str

    @classmethod
    def of(cls, w: Array, source: str) -> Borders:
        """Half way to the neighbours, which are nearer towards zero where a weight is a power of two."""
        xp = namespace(w)
        digits, least = DIGITS[source]
        size = xp.abs(xp.astype(w, xp.float64))
        mantissa, exponent = xp.frexp(size)
        exponent = xp.where(size == 0, like(least, size, size.dtype), xp.astype(exponent, xp.float64) - 1)
        exponent = xp.clip(exponent, float(least), None)
        half = 2.0 ** (exponent - digits - 1)
        inner = xp.where((mantissa == 0.5) & (exponent > least), half / 2, half)
        # What float32 arithmetic adds to the sum of a product and a shift.
        error = xp.max(size, axis=-1, keepdims=True) * 2.0**-24
        up, down = xp.where(w < 0, inner, half), xp.where(w < 0, half, inner)
        value = xp.astype(w, xp.float64)
        return cls(w, value - down - error, value + up + error, source)

    @property
    def distance(self) -> Array:
        """Of the two borders of each weight; 0 where there are none."""
        xp = namespace(self.w)
        return xp.where(xp.isfinite(self.low), self.high - self.low, xp.zeros_like(self.low))

    def __getitem__(self, chosen: Array) -> Borders:
        """Some of the blocks."""
        return Borders(self.w[chosen], self.low[chosen], self.high[chosen], self.source)

    def split(self, count: int) -> Borders:
        """Each block as `count` of their own."""
        xp = namespace(self.w)
        low, high, w = (xp.reshape(x, (x.shape[0] * count, -1)) for x in (self.low, self.high, self.w))
        return Borders(w, low, high, self.source)

    def without(self, hidden: Array) -> Borders:
        """The same with no borders where `hidden` [blocks, size] says so."""
        xp, far = namespace(self.w), float("inf")
        return Borders(self.w, xp.where(hidden, -far, self.low), xp.where(hidden, far, self.high), self.source)

    def met(self, value: Array) -> Array:
        """Whether all floats of a block round to its weights (where there are borders), bool [blocks]."""
        xp = namespace(value)
        return xp.all((NUMBERS[self.source].round(value) == self.w) | ~xp.isfinite(self.low), axis=-1)
