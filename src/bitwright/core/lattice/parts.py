"""Small blocks by themselves: their codes, and what scale and shift they want."""

from __future__ import annotations

from dataclasses import dataclass

from bitwright.core.array import Array, namespace
from bitwright.core.format import Format
from bitwright.core.lattice.borders import Borders
from bitwright.core.lattice.fit import least_squares, range_of
from bitwright.core.lattice.guesses import Guess, guessed
from bitwright.core.lattice.search import search

PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31)
SLACK = 3.0
"""Borders' distance from a weight, in which a fit must lie that is not yet of stored numbers."""


@dataclass
class Parts:
    """Small blocks: codes, wanted scale and shift (float64 [blocks]), and whether no coarser lattice holds them."""

    codes: Array
    scale: Array
    shift: Array
    sure: Array

    @classmethod
    def of(cls, b: Borders, format: Format) -> Parts | None:
        """By the first guess that fits each block, scales not yet as stored; None where one block has none."""
        xp = namespace(b.w)
        found = search(b, format, _wanted)
        if found is None:
            return None
        codes, scale, shift = found
        empty = xp.all(b.w == 0, axis=-1)
        scale = xp.where(empty, xp.zeros_like(scale), scale)
        return cls(codes, scale, xp.where(empty, xp.zeros_like(shift), shift), empty | finest(codes, format))


def _wanted(b: Borders, format: Format, guess: Guess) -> tuple[Array, ...]:
    """Codes, scale and shift of blocks by a guess, scales not yet as stored, and of which these are near enough."""
    xp = namespace(b.w)
    codes, _ = next(guessed(b, format, guess))
    x = xp.astype(format.grid.decode(codes), xp.float64)
    low, high = range_of(b, x, 0.0)
    d, e, ok = (low + high) / 2, xp.zeros_like(low), low <= high
    if guess[0] is not None:
        slope, start = least_squares(b, x, xp.ones_like(x), most=0.0)
        off = xp.abs(slope[:, None] * x + start[:, None] - xp.astype(b.w, xp.float64))
        d, e = xp.where(ok, d, slope), xp.where(ok, e, start)
        ok = ok | xp.all(off <= SLACK * (b.high - b.low) / 2, axis=-1)
    return codes, d, e, ok


def finest(codes: Array, format: Format) -> Array:
    """Whether the values of a block [blocks, size] have no common divisor; of other grids, whether they differ."""
    xp = namespace(codes)
    if not format.grid.uniform:
        return xp.any(codes != codes[:, :1], axis=-1)
    values = xp.astype(xp.astype(codes, xp.int16) + int(format.grid.low), xp.int16)
    found = xp.any(values != 0, axis=-1)
    for prime in PRIMES:
        found = found & xp.any(values % prime != 0, axis=-1)
    return found
