"""Blocks with one scale each."""

from __future__ import annotations

from typing import Any

from bitwright.core.array import namespace
from bitwright.core.format import Format
from bitwright.core.lattice.borders import Borders
from bitwright.core.lattice.fit import fitted_factors
from bitwright.core.lattice.guesses import guessed, guesses

HOPE = 8
"""Guesses after which a matrix is no lattice where not one of its first blocks, if there are more, is."""


def plain(b: Borders, format: Format) -> tuple[Any, ...] | None:
    """Codes, scales, zeros and shifts of blocks with one scale each; None where one block has none."""
    xp, number = namespace(b.w), format.scale.levels[0].number
    codes = xp.zeros(b.w.shape, dtype=xp.uint8, device=b.w.device)
    scale, zero, shift = xp.ones_like(b.w[:, 0]), xp.zeros_like(b.w[:, 0]), xp.zeros_like(b.w[:, 0])
    left = xp.arange(b.w.shape[0], device=b.w.device)
    for count, guess in enumerate(guesses(format)):
        if count == HOPE and left.shape[0] == b.w.shape[0] > HOPE:
            return None
        here = b[left]
        open = xp.ones(left.shape, dtype=xp.bool, device=left.device)
        for tried, start in guessed(here, format, guess):
            z = None if format.shift is None else xp.ones_like(here.w)
            d, e, ok = fitted_factors(here, format.grid.decode(tried) - start, None, z, number)
            ok = ok & open
            won = left[ok]
            codes[won], scale[won], zero[won], shift[won] = tried[ok], d[ok], start[ok, 0], e[ok]
            open = open & ~ok
            if not xp.any(open):
                break
        left = left[open]
        if not left.shape[0]:
            zeros, shifts = None if format.zero is None else zero, None if format.shift is None else shift
            return codes, scale, zeros, shifts, None, None
    return None
