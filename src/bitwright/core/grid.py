"""Grids: the values that a code can mean, before scale, zero and shift."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np

from bitwright.core.array import Array, like, namespace
from bitwright.core.code import Code


@dataclass(frozen=True)
class Grid(Code):
    """The value of each code, in code order; NaN marks a code that is never used.

    >>> INT[2].values
    (-2.0, -1.0, 0.0, 1.0)
    >>> FP4.values[:8]          # E2M1: sign bit, two exponent bits, one mantissa bit
    (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    """

    name: str
    values: tuple[float, ...]

    @cached_property
    def bits(self) -> int:  # type: ignore[override]
        """Bits of one code."""
        return max(1, math.ceil(math.log2(len(self.values))))

    @cached_property
    def low(self) -> float:
        """The smallest value."""
        return min(v for v in self.values if v == v)

    @cached_property
    def high(self) -> float:
        """The largest value."""
        return max(v for v in self.values if v == v)

    @property
    def top(self) -> float:
        """max|value|."""
        return max(-self.low, self.high)

    @cached_property
    def levels(self) -> int:  # type: ignore[override]
        """How many different numbers the values are: 0 and -0 are one, NaN is none."""
        return len({v for v in self.values if v == v})

    @cached_property
    def level_of(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """The level of each code; None where all codes mean different values."""
        if self.levels == len(self.values):
            return None
        places = {v: i for i, v in enumerate(dict.fromkeys(v for v in self.values if v == v))}
        return tuple(places[v] if v == v else -1 for v in self.values)

    @cached_property
    def uniform(self) -> bool:
        """True where the values are `low, low + 1, low + 2, ...`: rounding needs no table."""
        return all(v == self.values[0] + i for i, v in enumerate(self.values))

    @cached_property
    def zero_code(self) -> int | None:
        """The code that means exactly 0, or None where the grid has no zero."""
        return self.values.index(0.0) if 0.0 in self.values else None

    @cached_property
    def _sorted(self) -> tuple[list[float], list[int], list[float]]:
        """Distinct values in order, the code of each, and the float32 thresholds between neighbours.

        A value exactly half way goes to the even code, as IEEE 754 rounds: its threshold is moved one
        float32 step down where the upper neighbour is the even one.
        """
        first = {v: code for code, v in reversed(list(enumerate(self.values))) if v == v}
        values = sorted(first)
        codes = [first[v] for v in values]
        thresholds = []
        for i in range(len(values) - 1):
            middle = np.float32((values[i] + values[i + 1]) / 2)
            tie_goes_up = codes[i] % 2 == 1 and codes[i + 1] % 2 == 0
            thresholds.append(float(np.nextafter(middle, np.float32(-np.inf)) if tie_goes_up else middle))
        return values, codes, thresholds

    @property
    def ladder(self) -> tuple[np.ndarray, np.ndarray]:
        """The distinct values in order and the borders between neighbours, float32: what `round` is by loops.

        The value nearest to x is the one with as many values below it as there are borders below x.
        """
        _, codes, thresholds = self._sorted
        return np.array([self.values[code] for code in codes], np.float32), np.array(thresholds, np.float32)

    def nearest(self, x: Array, table: Array | None = None) -> Array:
        """Codes (uint8) of the grid values nearest to `x`, any shape; out of range saturates, ties go to even."""
        xp = namespace(x)
        if self.uniform:
            if self.low % 1:
                whole = (x - self.low).round()
            else:
                whole = x.round()
                whole -= self.low
            # By way of int16: torch turns floats into unsigned bytes one at a time.
            return xp.astype(xp.astype(whole.clip(0.0, float(len(self.values) - 1)), xp.int16), xp.uint8)
        _, codes, thresholds = self._sorted
        rank = xp.searchsorted(like(thresholds, x), xp.reshape(x, (-1,)), side="left")
        return xp.take(like(codes, x, xp.uint8), rank, axis=0).reshape(x.shape)

    def round(self, x: Array) -> Array:
        """The grid values nearest to `x` (float32)."""
        if self.uniform and self.low % 1 == 0:
            return x.round().clip(self.low, self.high)
        return self.decode(self.nearest(x))

    def decode(self, codes: Array, table: Array | None = None) -> Array:
        """The float32 values that `codes` (uint8, any shape) mean."""
        xp = namespace(codes)
        if self.uniform:
            value = xp.astype(codes, xp.float32)
            value += self.low
            return value
        return xp.take(like(self.values, codes), xp.astype(xp.reshape(codes, (-1,)), xp.int64), axis=0).reshape(
            codes.shape
        )


def midrise(bits: int) -> Grid:
    """Evenly spaced values around zero without a zero: -2^(b-1) + 1/2, ..., 2^(b-1) - 1/2.

    The optimum uniform quantizer of a symmetric density has this form (Max 1960).
    """
    half = 2 ** (bits - 1)
    return Grid(f"midrise{bits}", tuple(i + 0.5 for i in range(-half, half)))


def floating(name: str, exponent: int, mantissa: int, *, bias: int, special: str) -> Grid:
    """A floating-point format as a grid in the order of its bit patterns (sign, exponent, mantissa).

    `special`: "none" (every pattern is a number, OCP MX FP4), "nan" (only all-ones is NaN, OCP FP8 E4M3) or
    "ieee" (the top exponent is Inf and NaN, OCP FP8 E5M2). Codes that are not finite are NaN here: never used.
    """
    values: list[float] = []
    top = 2**exponent - 1
    for pattern in range(2 ** (exponent + mantissa)):
        e, m = divmod(pattern, 2**mantissa)
        unusable = (special == "ieee" and e == top) or (special == "nan" and e == top and m == 2**mantissa - 1)
        if unusable:
            values.append(math.nan)
        elif e == 0:
            values.append(m * 2.0 ** (1 - bias - mantissa))
        else:
            values.append((1 + m / 2**mantissa) * 2.0 ** (e - bias))
    return Grid(name, tuple(values) + tuple(-v for v in values))


def _normal_float(bits: int) -> Grid:
    """NormalFloat: equiprobable quantiles of N(0,1) scaled to [-1, 1], with an exact 0 (QLoRA, arXiv 2305.14314)."""
    half = 2 ** (bits - 1)
    tail = (1 - 1 / (2 * 2**bits - 2) + 1 - 1 / (2 * 2**bits)) / 2
    quantile = NormalDist().inv_cdf

    def side(count: int) -> list[float]:
        return [quantile(tail + (0.5 - tail) * i / count) for i in range(count)]

    up, down = side(half), side(half - 1)
    values = sorted([-v for v in down] + [0.0] + up)
    return Grid(f"nf{bits}", tuple(v / max(up) for v in values))


def whole(name: str, low: int, high: int) -> Grid:
    """The whole numbers `low` ... `high`."""
    return Grid(name, tuple(float(i) for i in range(low, high + 1)))


INT = {bits: whole(f"int{bits}", -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in range(1, 9)}
"""Two's complement, -2^(b-1) ... 2^(b-1) - 1."""
NARROW = {bits: whole(f"int{bits}_narrow", 1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1) for bits in range(2, 9)}
"""The same without the lowest value: negating a code, as a negative scale does, never leaves the range."""
UINT = {bits: whole(f"uint{bits}", 0, 2**bits - 1) for bits in range(1, 9)}
"""Unsigned, 0 ... 2^b - 1: with a shift."""
TERNARY = Grid("ternary", (-1.0, 0.0, 1.0))
NF4 = _normal_float(4)
FP4 = floating("fp4_e2m1", 2, 1, bias=1, special="none")
E4M3 = floating("fp8_e4m3", 4, 3, bias=7, special="nan")
E5M2 = floating("fp8_e5m2", 5, 2, bias=15, special="ieee")
