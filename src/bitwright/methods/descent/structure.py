"""Formats with factors around their scales, or with shifts: their numbers, and the order of their columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bitwright.core.array import Array, namespace
from bitwright.core.format import Format
from bitwright.core.grid import Grid


class Rules(NamedTuple):
    """What the compiled loops must know of a format."""

    low: np.float32
    """The smallest value of the grid, as `high` is the largest, and `top` the largest size."""
    high: np.float32
    top: np.float32
    levels: np.ndarray
    """The values in order and the borders between them; both empty where the values are whole numbers in a row."""
    borders: np.ndarray
    first: np.float32
    """Of which shares of a block's range to try the scale: from `first` to `last`. Wider steps than the range asks for
    are worth trying where few weights of a block count: with more levels, more of them fit those few."""
    last: np.float32
    shifted: bool
    signed: bool
    """Whether each block may have a sign of its own."""
    zeros: bool
    """Whether a scale may be 0."""
    least: np.float32
    """The smallest and the largest whole number that a block's scale may be, times its factor."""
    most: np.float32
    floor: np.float32
    """The same of shifts."""
    ceiling: np.float32
    digits: int
    """Significant binary digits of factors, their smallest distance, and the largest."""
    finest: np.float32
    largest: np.float32
    direct: bool
    """Whether there are no whole numbers: the factors are the scales and shifts themselves."""


def suits(format: Format) -> bool:
    """Whether scales of `format` are chosen anew for each block as its turn comes, and not by a search beforehand.

    They are where an fp16 factor is shared by whole numbers of up to 8 bits, where there are shifts, stored alike, and
    where the values are such that the sign of a scale matters.
    """
    levels, shift, grid = format.scale.levels, format.shift, format.code
    if not isinstance(grid, Grid) or format.zero is not None or format.rotated or len(levels) > 2:
        return False
    outer = levels[-1]
    if outer.block == "tensor" or not outer.number.digits or not outer.number.signed:
        return False
    if not all(level.number.whole for level in levels[:-1]):
        return False
    if shift is None:
        return len(levels) == 2 or not (grid.uniform or grid.low == -grid.high)
    alike = [level.block for level in shift.levels] == [level.block for level in levels]
    return alike and shift.zeros and shift.levels[-1].type == outer.type and all(
        level.number.whole for level in shift.levels[:-1]
    )  # fmt: skip


@dataclass(frozen=True)
class Structure:
    """Blocks of a row of `columns` weights in a format that `suits`.

    `size` weights share a scale (and a shift), `width` weights a factor.
    """

    format: Format
    columns: int

    @property
    def size(self) -> int:
        """Weights per scale."""
        return self.format.block_size(self.columns)

    @property
    def width(self) -> int:
        """Weights per factor."""
        block = self.format.scale.levels[-1].block
        return block if isinstance(block, int) else self.columns

    @property
    def direct(self) -> bool:
        """Whether scales are stored as they are, with no factor."""
        return len(self.format.scale.levels) == 1

    def order(self, power: Array) -> Array:
        """All columns: super-blocks, their blocks, their columns, each by falling mean of `power` [columns]."""
        xp = namespace(power)
        places = xp.arange(self.columns, dtype=xp.int64, device=power.device)[None, :]
        for size in (self.width, self.size, 1):  # each sorts within what the one before it has sorted
            parts = xp.reshape(xp.take(power, xp.reshape(places, (-1,)), axis=0), (places.shape[0], -1, size))
            rank = xp.argsort(-parts.mean(axis=-1), axis=-1, stable=True)
            held = xp.reshape(places, (places.shape[0], -1, size))
            places = xp.reshape(xp.take_along_axis(held, rank[..., None], axis=1), (-1, size))
        return xp.reshape(places, (-1,))

    def rules(self) -> Rules:
        """For the compiled loops."""
        format, grid = self.format, self.format.grid
        inner, outer = format.scale.levels[0].number, format.scale.levels[-1].number
        levels, borders = grid.ladder
        if grid.uniform and grid.low % 1 == 0:
            levels, borders = levels[:0], borders[:0]
        ends = (1.0, 1.0) if self.direct else (inner.low, inner.high)
        shifts = ends
        if format.shift is not None and not self.direct:
            shifts = (format.shift.levels[0].number.low, format.shift.levels[0].number.high)
        fewer = grid.levels**-0.5
        numbers = (grid.low, grid.high, grid.top, 1 - 1.1 * fewer, 1.3, *ends, *shifts)
        low, high, top, first, last, least, most, floor, ceiling = (np.float32(number) for number in numbers)
        return Rules(
            low, high, top, levels, borders, first, last, format.shift is not None,
            self.direct or inner.low < 0, format.scale.zeros, least, most,
            floor, ceiling, outer.digits, np.float32(outer.finest), np.float32(outer.high), self.direct,
        )  # fmt: skip
