"""Codes: the value of a stored integer, before scale, zero and shift."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from bitwright.core.array import Array, float32, namespace

CHUNK = 1 << 22
"""Weights looked up in free codebooks at a time: each costs a few dozen bytes meanwhile."""
HALF = 16
"""Bits of one value of a table: fp16."""


class Code(ABC):
    """The meaning of stored integers: fixed values (`Grid`), or values that each block brings along (`Codebook`).

    Blocks come as `Format.blocks` cuts them, [rows, groups, size]; a `table` is float32 [rows or 1, groups or 1, n].
    A code for several weights at once fits here as well. A codebook of vectors of d weights would decode
    [rows, groups, size / d] to [rows, groups, size], and its `row_bits(n)` would be n / d codes.
    """

    name: str
    bits: int
    """Bits of one code."""
    rows: int = 1
    """Rows that are decoded together: a matrix may be cut at multiples of so many."""
    suits: float | None = None
    """The standard deviation of normally distributed weights that the values suit; None where their range does."""
    visits: int = 0
    """Values that are tried for each weight, where finding codes is a search."""
    libraries: int = 0
    """Bytes of memory that libraries take which such a search alone imports."""

    @property
    @abstractmethod
    def top(self) -> float:
        """The largest size of a value."""

    @property
    @abstractmethod
    def levels(self) -> int:
        """How many different values a weight of one block can have."""

    @property
    def level_of(self) -> Sequence[int] | None:
        """The level of each code, -1 for one that is never used; None where level i is code i."""
        return None

    @property
    def table_bits(self) -> int:
        """Bits of the table that each block stores; 0 where the values are fixed."""
        return 0

    def row_bits(self, weights: int) -> int:
        """Bits of the codes of `weights` weights in a row, unpadded."""
        return weights * self.bits

    @abstractmethod
    def decode(self, codes: Array, table: Array | None = None) -> Array:
        """The float32 values that `codes` (uint8) mean."""

    @abstractmethod
    def nearest(self, x: Array, table: Array | None = None) -> Array:
        """The codes (uint8) of the values nearest to `x` (float32)."""


@dataclass(frozen=True)
class Codebook(Code):
    """2^bits free values per block, stored as fp16 in ascending order: code i means `table[..., i]`.

    >>> import numpy as np
    >>> table = np.array([[[-1.0, 0.5]]], np.float32)
    >>> Codebook("codebook1", 1).nearest(np.array([[[-3.0, 0.0, 9.0]]], np.float32), table)
    array([[[0, 1, 1]]], dtype=uint8)
    """

    name: str
    bits: int

    @property
    def top(self) -> float:
        """The largest number of fp16."""
        return 65504.0

    @property
    def levels(self) -> int:
        """2^bits."""
        return 1 << self.bits

    @property
    def table_bits(self) -> int:
        """Bits of one block's table."""
        return HALF << self.bits

    def decode(self, codes: Array, table: Array | None = None) -> Array:
        """table[r, g, codes[r, g, i]], float32 [rows, groups, size]. Raises ValueError without a table."""
        table = _require(self, table)
        xp = namespace(codes)
        rows, groups, levels = table.shape
        first = xp.arange(rows * groups, dtype=xp.int64, device=codes.device) * levels
        flat = xp.reshape(xp.astype(codes, xp.int64) + xp.reshape(first, (rows, groups, 1)), (-1,))
        return xp.reshape(xp.take(xp.reshape(table, (-1,)), flat, axis=0), codes.shape)

    def nearest(self, x: Array, table: Array | None = None) -> Array:
        """Codes of the values nearest to `x` [rows, groups, size]; half way, the lower. ValueError without a table."""
        table = _require(self, table)
        xp = namespace(x)
        borders = xp.reshape(middles(table), (-1, table.shape[-1] - 1))
        flat = xp.reshape(float32(x), (borders.shape[0], -1))
        codes = xp.empty(flat.shape, dtype=xp.uint8, device=x.device)
        step, width = (1, CHUNK) if flat.shape[1] > CHUNK else (max(1, CHUNK // flat.shape[1]), flat.shape[1])
        for i in range(0, flat.shape[0], step):
            for j in range(0, flat.shape[1], width):
                below = rank(borders[i : i + step], flat[i : i + step, j : j + width])
                codes[i : i + step, j : j + width] = xp.astype(below, xp.uint8)
        return xp.reshape(codes, x.shape)


def _require(code: Code, table: Array | None) -> Array:
    if table is None:
        raise ValueError(f"{code.name} means nothing without a table")
    return table


def middles(table: Array) -> Array:
    """The borders between neighbouring values; a weight on a border belongs to the value below it."""
    return table[..., :-1] + (table[..., 1:] - table[..., :-1]) / 2


def rank(rows: Array, queries: Array, above: bool = False) -> Array:
    """How many entries of each ascending row [blocks, n] lie below each query [blocks, m] (`above`: or equal it)."""
    xp = namespace(rows)
    if rows.shape[0] == 1:
        side = "right" if above else "left"
        found = xp.searchsorted(xp.reshape(rows, (-1,)), xp.reshape(queries, (-1,)), side=side)
        return xp.reshape(found, queries.shape)
    n = rows.shape[1]
    count = xp.zeros(queries.shape, dtype=xp.int64, device=rows.device)
    step = 1 << (n.bit_length() - 1)
    while step:
        probe = count + step
        entry = xp.take_along_axis(rows, xp.clip(probe, 1, n) - 1, axis=-1)
        below = (entry <= queries) if above else (entry < queries)
        count = xp.where(below & (probe <= n), probe, count)
        step //= 2
    return count
