"""The loops over single weights, compiled. Imported where they run, and only there: numba takes a while to load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bitwright.core.array import Array
from bitwright.core.compiled import compiled
from bitwright.methods.gptq import Steps


@dataclass(frozen=True)
class Numbers:
    """Grid, scales, zeros and shifts as the loop takes them."""

    scale: np.ndarray
    """Float32 [groups, rows]."""
    zero: np.ndarray
    """The same; empty without zeros."""
    shift: np.ndarray
    """The same; empty without shifts."""
    group: np.ndarray
    """The group of each column, [columns]."""
    low: np.float32
    """The first value of an evenly spaced grid, less `offset`, as is `high`, the last."""
    high: np.float32
    offset: np.float32
    levels: np.ndarray
    """The values in order and the borders between them; both empty for an evenly spaced grid."""
    borders: np.ndarray

    @classmethod
    def of(cls, steps: Steps, rows: int) -> Numbers:
        """Of `steps`, whose scales may be one for all rows."""

        def spread(numbers: Array) -> np.ndarray:
            return np.ascontiguousarray(np.broadcast_to(np.asarray(numbers), (len(numbers), rows)))

        none = np.empty((0, 0), np.float32)
        zero, shift = (none if part is None else spread(part) for part in (steps.zero, steps.shift))
        grid = steps.format.grid
        levels, borders = grid.ladder
        if grid.uniform:
            levels, borders = levels[:0], borders[:0]
        offset = grid.low if grid.low % 1 else 0.0
        low, high = (np.float32(end - offset) for end in (grid.low, grid.high))
        group = np.asarray(steps.group, np.uintp)
        return cls(spread(steps.scale), zero, shift, group, low, high, np.float32(offset), levels, borders)

    def columns(self, start: int, stop: int) -> tuple[Any, ...]:
        """For some columns."""
        ends = (self.low, self.high, self.offset)
        return (self.scale, self.zero, self.shift, self.group[start:stop], *ends, self.levels, self.borders)


def _sweep(  # type: ignore[no-untyped-def]
    base, carried, power, matrix, order, values, decoded, own, across, felt,
    first, scale, zero, shift, group, low, high, offset, levels, borders,
):  # fmt: skip
    rows, columns = base.shape
    coupled, feeding = across.size > 0, own.size > 0
    none, one = np.float32(0), np.float32(1)
    for row in range(rows):
        if coupled and not feeding:
            for k in range(columns):
                felt[row, k] = carried[row, k]
        for i in range(columns):
            column = order[i]
            block = group[column]
            step = scale[block, first + row]
            origin = zero[block, first + row] if zero.size > 0 else none
            start = shift[block, first + row] if shift.size > 0 else none
            wanted = base[row, column] + carried[row, column] / power[column]
            wanted = (wanted - start) / (step if step != 0 else one) + origin
            # Not a function: each call would count references to its arrays, which takes longer than all the rest.
            if borders.size == 0:
                value = min(max(np.rint(wanted - offset), low), high) + offset
            else:
                count, probe = 0, 128
                while probe > 0:
                    if count + probe <= borders.size and borders[count + probe - 1] < wanted:
                        count += probe
                    probe //= 2
                value = levels[count]
            if feeding or value != values[row, column]:
                new = (value - origin) * step + start
                change = base[row, column] - new
                values[row, column] = value
                decoded[row, column] = new
                for k in range(columns):
                    carried[row, k] += change * matrix[column, k]
        if coupled:
            for k in range(columns):
                felt[row, k] = own[row, k] - decoded[row, k] if feeding else carried[row, k] - felt[row, k]
            into = base if feeding else carried
            for other in range(row + 1, rows):
                share = across[other, row]
                for k in range(columns):
                    into[other, k] += share * felt[row, k]


sweep = compiled(_sweep)
"""(base, carried, power, matrix, order, values, decoded, own, across, felt, first row, *Numbers.columns).

Visits all weights of some rows [rows, columns], a row at a time, its columns in `order`. A weight becomes the value of
the grid nearest to base + carried / power; then `carried` of its row takes up base - decoded times the weight's row of
`matrix`. All in place, and all float32.

Descent: `base` is `decoded`, `carried` the pull, `power` and `matrix` are diag H and H, `own` is empty. `felt` becomes
what the moves of each row have changed of its pull, of which the pull of a later row takes the share
across[later, row].

Error feedback: `base` are targets, `power` is 1, `matrix` U, `own` the weights. `felt` becomes own - decoded, of which
the target of a later row takes its share.

Where rows do not meet, `across` and `felt` are empty.
"""
