"""One scale for all values of a tensor that is rounded as it runs, chosen by how its values lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitwright.core.grid import Grid
from bitwright.core.observe import Histogram, search
from bitwright.core.scaling import Number

FINENESS = 4
"""Factors tried per octave are eight times as many; see `search`."""
SMALLEST = 2.0**-126
"""The smallest scale: a normal number of float32."""


def fit(seen: Histogram, grid: Grid, number: Number) -> float:
    """The scale s, stored as `number`, with the least E[(x - s round(x / s))^2] over what was seen.

    Larger values saturate at the ends of `grid`, which holds 0. From max|x| / `grid.high` down by factors to 1/32. 1.0
    where nothing but zeros was seen: any scale keeps them.

    >>> from bitwright.core.grid import INT
    >>> from bitwright.core.scaling import NUMBERS
    >>> fit(Histogram.of(np.array([-7.0, 7.0] + [3.0] * 9, np.float32)), INT[4], NUMBERS["fp16"])
    1.0
    """
    peak = max(seen.high, -seen.low)
    if not seen.count or not peak > 0:
        return 1.0

    def stored(high: Any) -> Any:
        scales = number.round(np.asarray(high / grid.high, np.float32))
        return np.maximum(scales.astype(np.float64), max(number.least, SMALLEST))

    _, high = search(lambda low, high: noise(seen, stored(high), grid), -peak, peak, True, FINENESS)
    return float(stored(np.array([high]))[0])


def noise(seen: Histogram, scales: Any, grid: Grid) -> Any:
    """E[(x - x^)^2] for each of `scales` [n], float64 [n], if values spread evenly within a bin; exact zeros apart.

    With F the count and M the sum of the values below x, both known at every x, a code that means v and takes what lies
    between two borders costs the sum of squares there less 2 v dM plus v^2 dF.
    """
    counts, edges = seen.counts.astype(np.float64), seen.edges
    if seen.zeros:
        counts[-seen.first] -= seen.zeros
    edges[0] = max(edges[0], seen.low)
    if edges[-2] < seen.high:
        edges[-1] = min(edges[-1], seen.high)
    left, right = edges[:-1], edges[1:]
    density = counts / (right - left)
    below = np.concatenate([[0.0], np.cumsum(counts)])
    sums = np.concatenate([[0.0], np.cumsum(counts * (left + right) / 2)])
    squares = float((counts * (left * left + left * right + right * right) / 3).sum())
    values, borders = (part.astype(np.float64) for part in grid.ladder)
    out = np.empty(len(scales))
    for i, scale in enumerate(scales):
        x = np.clip(borders * scale, edges[0], edges[-1])
        at = np.clip(np.searchsorted(edges, x, "right") - 1, 0, len(counts) - 1)
        inside = density[at] * (x - left[at])
        count = np.diff(below[at] + inside, prepend=0.0, append=below[-1])
        total = np.diff(sums[at] + inside * (x + left[at]) / 2, prepend=0.0, append=sums[-1])
        v = values * scale
        out[i] = squares - 2 * float(v @ total) + float((v * v) @ count)
    return np.maximum(out, 0.0) / seen.count
