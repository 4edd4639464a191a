"""What the extreme weights of a block may mean, and all codes that follow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bitwright.core.array import Array, float32, namespace
from bitwright.core.format import Format
from bitwright.core.lattice.borders import DIGITS, Borders
from bitwright.core.qtensor import divisor

Guess = tuple[Any, Any]
"""What the extreme weights mean: the lowest and the highest, or (None, what the one of the largest size means), for all
blocks alike; or arrays [blocks, 1], for each its own."""


def guesses(format: Format) -> list[Guess]:
    """Guesses in the order in which encoders choose: llama.cpp's let the largest weight mean the lowest value, whatever
    its sign, and the largest of 8 bits 127."""
    grid = format.grid
    if format.zero is not None:
        return [(0.0, float(span)) for span in range(int(grid.high - grid.low), 0, -1)]
    values = sorted({value for value in grid.values if value == value and value}, key=abs, reverse=True)
    if format.shift is not None:
        spans: list[Guess] = [(0.0, high) for high in values]
        spans += [(None, high) for high in values]
        spans += [(low, high) for high in values for low in values if low < high]
        if len(format.scale.levels) > 1:
            return spans
        return spans + [(high, low) for low, high in spans if low is not None]  # by a negative scale
    if _positive(format):
        up: list[Guess] = [(None, value) for value in values if value > 0]
        return up if grid.low == -grid.high else [up[0], (None, grid.low), *up[1:]]
    return [(None, value) for value in values if value < 0 or not grid.uniform]


def _positive(format: Format) -> bool:
    """Whether scales are positive, unless the largest weight means a value that has no opposite."""
    return format.grid.bits == 8 or format.grid.low == -format.grid.high


def guessed(b: Borders, format: Format, guess: Guess) -> Iterator[tuple[Array, Array]]:
    """Codes (uint8 [blocks, size]) and zeros (0 without any, [blocks, 1]) by a guess; where that is too rough, by each
    stored scale near it.

    Weights of bfloat16 are known to 1 in 256, which is half a step of the largest of 8 bits.
    """
    xp, w = namespace(b.w), b.w
    low, high = xp.min(w, axis=-1)[:, None], xp.max(w, axis=-1)[:, None]
    middle, none = float32((b.low + b.high) / 2), xp.zeros_like(low)  # of a power of two it is not the weight
    if format.zero is not None:
        low, high = xp.minimum(low, none), xp.maximum(high, none)  # 0 is a code's value less the zero, whichever it is
    if guess[0] is None:
        scale, start = xp.where(high >= -low, high, low) / guess[1], none
        if format.shift is None and _positive(format):
            scale = xp.where(guess[1] * xp.ones_like(scale) > 0, xp.abs(scale), scale)
    else:
        scale = (high - low) / (guess[1] - guess[0])
        start = none if format.zero is not None else low - guess[0] * scale

    def codes(scale: Array) -> tuple[Array, Array]:
        x = (middle - start) / divisor(scale)
        if format.zero is None:
            return format.grid.nearest(x), none
        first = xp.minimum(xp.min(xp.round(x), axis=-1)[:, None], none)
        zero = format.zero.levels[0].number.round(format.grid.low - first)
        return format.grid.nearest(xp.round(x) + zero), zero

    number, *several = (level.number for level in format.scale.levels)
    rough = abs(guess[1]) >= 2.0 ** (DIGITS[b.source][0] - 2)
    if several or format.shift is not None or not (rough if isinstance(rough, bool) else xp.any(rough)):
        yield codes(scale)
        return
    for away in sorted(range(-8, 9), key=abs):
        yield codes(number.round(scale * (1 + away * 2.0**-11)))
