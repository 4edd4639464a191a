"""Blocks with one scale each."""

from __future__ import annotations

from typing import Any

from bitwright.core.array import Array, namespace
from bitwright.core.format import Format
from bitwright.core.lattice.borders import Borders
from bitwright.core.lattice.fit import fitted_factors
from bitwright.core.lattice.guesses import Guess, guessed
from bitwright.core.lattice.search import search


def plain(b: Borders, format: Format) -> tuple[Any, ...] | None:
    """Codes, scales, zeros and shifts of blocks with one scale each; None where one block has none."""
    found = search(b, format, fitted)
    if found is None:
        return None
    codes, scale, zero, shift = found
    zeros, shifts = None if format.zero is None else zero, None if format.shift is None else shift
    return codes, scale, zeros, shifts, None, None


def fitted(b: Borders, format: Format, guess: Guess) -> tuple[Array, ...]:
    """Codes, scales, zeros and shifts of blocks by one guess, and of which these are: [blocks]."""
    xp, number = namespace(b.w), format.scale.levels[0].number
    z = None if format.shift is None else xp.ones_like(b.w)
    best: tuple[Array, ...] | None = None
    for tried, zero in guessed(b, format, guess):
        d, e, ok = fitted_factors(b, format.grid.decode(tried) - zero, None, z, number)
        now = (tried, d, zero[:, 0], e, ok)
        if best is None:
            best = now
        else:
            won = ok & ~best[-1]
            for x, y in zip(best, now, strict=True):
                x[won] = y[won]
        if xp.all(best[-1]):
            break
    assert best is not None  # every guess gives codes
    return best
