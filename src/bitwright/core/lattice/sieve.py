"""What weights on a lattice must have in common, which most others do not: a test before any guess is made."""

from __future__ import annotations

from bitwright.core.array import Array, namespace
from bitwright.core.grid import Grid
from bitwright.core.lattice.borders import Borders


def possible(b: Borders, grid: Grid) -> Array:
    """Whether some scale and shift may bring the values of `grid` within all borders, bool [blocks].

    A block has as many different weights as there are values at most. Where its highest and lowest number are r apart,
    values of a span s are at least r / s times as far apart as in the grid.
    """
    xp = namespace(b.w)
    values = sorted({value for value in grid.values if value == value})
    closest = min(above - below for below, above in zip(values, values[1:], strict=False))
    low, high = xp.sort(b.low, axis=-1), xp.sort(b.high, axis=-1)  # in one order: both rise with the weight
    different = low[:, 1:] > low[:, :-1]
    few = xp.sum(xp.astype(different, xp.int32), axis=-1) < len(values)
    least = (low[:, -1:] - high[:, :1]) * (closest / (values[-1] - values[0]) * (1 - 1e-9))
    return few & xp.all((high[:, 1:] - low[:, :-1] >= least) | ~different, axis=-1)
