"""Trellis codes: a weight's value follows from its own code and those before it on a path through the matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from statistics import NormalDist
from typing import Any

import array_api_compat
import numpy as np

from bitwright.core.array import Array, like, namespace
from bitwright.core.code import Code
from bitwright.errors import RecipeError

HISTORY = 12
"""Bits of the codes before a weight's own that say what it is worth."""
ROWS = 256
"""Rows that one path passes through."""
LEVELS = 12
"""Bits of the number of different values."""
GOLDEN = 0x9E3779B1
"""2^32 over the golden ratio, odd: its multiples modulo 2^32 lie as evenly as numbers can (Knuth, vol. 3, 6.4)."""
WIDER = {2: 1.0, 3: 1.04, 4: 1.08}
"""By bits, how much wider than the values the weights may be: found by trying on a normal distribution."""


@dataclass(frozen=True)
class Trellis(Code):
    """A bitshift trellis: the state of a weight is its code and the `history` bits before it on its path.

    A path passes through `rows` rows, along anti-diagonals: by row + column, then by row. Zeros come before it. With
    state q 2^bits + c, c the weight's own code, the value is the quantile (i + 1/2) / 2^LEVELS of the normal
    distribution, where i are the top LEVELS bits of the 32-bit number GOLDEN (q + 1) + 2^(32 - bits) c: the codes that
    can follow cut the distribution into equal shares, and the golden ratio shifts these from one q to the next.

    Source: QTIP (Tseng et al. 2024, arXiv 2406.11235) for bitshift trellises with computed values. Values, path and
    encoder are ours.

    >>> Trellis("trellis2", 2).worth[:4].round(2)
    array([ 0.3 ,  1.12, -1.18, -0.34], dtype=float32)
    """

    name: str
    bits: int
    history: int = HISTORY
    rows: int = ROWS

    @property
    def top(self) -> float:
        """The largest size of a value."""
        return float(-quantiles()[0])

    @property
    def suits(self) -> float:  # type: ignore[override]
        """The standard deviation of weights that the values suit."""
        return WIDER[self.bits]

    @property
    def levels(self) -> int:
        """2^bits: so many values can a weight have once the codes before it are known."""
        return 1 << self.bits

    @property
    def visits(self) -> int:  # type: ignore[override]
        """All states."""
        return 1 << (self.history + self.bits)

    @property
    def libraries(self) -> int:  # type: ignore[override]
        """Those of numba and LLVM, with the search compiled (measured: 118 MiB the one time that it is, else 96)."""
        return 124 << 20

    @property
    def worth(self) -> np.ndarray:
        """The value of each state, float32 [2^(history + bits)]."""
        return _worth(self.bits, self.history)

    def blocks(self, rows: int) -> Iterator[slice]:
        """The rows of each path."""
        return (slice(start, min(start + self.rows, rows)) for start in range(0, rows, self.rows))

    def decode(self, codes: Array, table: Array | None = None) -> Array:
        """The float32 values that `codes` (uint8 [rows, 1, columns]) mean."""
        xp = namespace(codes)
        found = xp.zeros(codes.shape, dtype=xp.float32, device=codes.device)
        worth = like(self.worth, codes)
        for block in self.blocks(codes.shape[0]):
            part = codes[block]
            to, back = (like(index, codes, xp.int64) for index in path(part.shape[0], part.shape[-1]))
            along = xp.astype(xp.take(xp.reshape(part, (-1,)), to, axis=0), xp.int32)
            state = xp.zeros_like(along)
            for before in range(1 + math.ceil(self.history / self.bits)):
                state[before:] |= along[: along.shape[0] - before] << (self.bits * before)
            value = xp.take(worth, xp.astype(state % len(self.worth), xp.int64), axis=0)
            found[block] = xp.reshape(xp.take(value, back, axis=0), part.shape)
        return found

    def nearest(self, x: Array, table: Array | None = None) -> Array:
        """The codes (uint8) of the paths whose values lie nearest to `x` (float32 [rows, 1, columns])."""
        none = np.empty((0, 0), np.float32)
        host = np.asarray(x.cpu() if array_api_compat.is_torch_array(x) else x, np.float32)
        codes = np.zeros(host.shape, np.uint8)
        for block in self.blocks(host.shape[0]):
            part = host[block, 0]
            rows, columns = (np.ones(n, np.float32) for n in part.shape)
            codes[block, 0], _ = self.follow(part, part, rows, rows, columns, none, none)
        return like(codes, x, namespace(x).uint8)

    def follow(
        self, base: Any, own: Any, scale: Any, outputs: Any, inputs: Any, across: Any, upper: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Codes (uint8) and errors of the rows `own` of one path, all NumPy float32: see `viterbi.encode`.

        Raises RecipeError where numba cannot be imported.
        """
        try:
            from bitwright.core import viterbi
        except ImportError as error:
            raise RecipeError(
                f"finding codes of {self.name} needs numba", where="format", fix="pip install numba", key="layer.format"
            ) from error
        rows, columns = own.shape
        codes, missed = np.zeros(own.shape, np.uint8), np.zeros(own.shape, np.float32)
        order, ends = path(rows, columns)[0], stretches(rows, columns, viterbi.AHEAD)
        viterbi.encode(
            base, own, scale, outputs, inputs, across, upper, self.worth, self.bits, order, ends, codes, missed
        )
        return codes, missed


@lru_cache(maxsize=2)
def path(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each step of a path lies in its rows, row after row, and at which step each weight is met; both int64."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    order = np.lexsort((row, row + column))
    return order, np.argsort(order)


def stretches(rows: int, columns: int, least: int) -> np.ndarray:
    """Ends of runs of whole anti-diagonals, of `least` steps or more, int64: weights of one do not feed each other."""
    ends: list[int] = []
    length = 0
    for diagonal in range(rows + columns - 1):
        length += min(diagonal, rows - 1, columns - 1, rows + columns - 2 - diagonal) + 1
        if length - (ends[-1] if ends else 0) >= least:
            ends.append(length)
    return np.array([*ends[:-1], length] if ends else [length], np.int64)


@cache
def quantiles() -> np.ndarray:
    """The 2^LEVELS different values, float32, ascending."""
    count = 1 << LEVELS
    return np.array([NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)], np.float32)


@cache
def _worth(bits: int, history: int) -> np.ndarray:
    state = np.arange(1 << (history + bits), dtype=np.uint64)
    q, c = state >> np.uint64(bits), state << np.uint64(32 - bits)
    place = (GOLDEN * (q + np.uint64(1)) + c) & np.uint64(0xFFFFFFFF)
    found: np.ndarray = quantiles()[place >> np.uint64(32 - LEVELS)]
    return found
