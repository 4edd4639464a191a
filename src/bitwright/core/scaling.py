"""How scales, zero points and shifts are stored: types of number, and levels of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from bitwright.core.array import Array, namespace
from bitwright.core.grid import E4M3
from bitwright.errors import RecipeError

Block = Literal["tensor", "channel"] | int
"""The weights that share a number: the whole tensor, one row (one output), or so many weights along a row."""


@dataclass(frozen=True)
class Number:
    """A type of stored number: `bits`, the range from `low` to `high`, and `round` (float32 to the nearest number).

    `signed` says whether a scale may be negative. e8m0 and e4m3 have no sign that runtimes read, but `round` keeps the
    one it is given, so that what it returns always decodes to what was meant.

    >>> NUMBERS["u6"].low, NUMBERS["u6"].high, NUMBERS["i6"].low, NUMBERS["fp16"].high
    (0.0, 63.0, -32.0, 65504.0)
    """

    name: str
    bits: int
    signed: bool
    low: float
    high: float
    round: Callable[[Array], Array]
    least: float = 0.0
    """Smaller ones lose most of their digits."""
    digits: int = 0
    """Significant binary digits of floating-point numbers, 0 of others."""
    finest: float = 0.0
    """The smallest distance of two floating-point numbers: the smallest above 0."""

    @property
    def whole(self) -> bool:
        """Whether these are whole numbers, as many as the bits can tell apart."""
        return self.high - self.low == 2.0**self.bits - 1 and self.bits > 0


def _float(
    name: str,
    bits: int,
    high: float,
    size: Callable[[Array], Array],
    *,
    signed: bool = True,
    digits: int = 0,
    finest: float = 0.0,
) -> Number:
    """A floating-point type; `size` rounds numbers that are not negative."""

    def round(x: Array) -> Array:
        xp = namespace(x)
        found = size(xp.clip(xp.abs(x), 0.0, high))
        return xp.where(x < 0, -found, found)

    return Number(name, bits, signed, -high, high, round, digits=digits, finest=finest)


def _integer(bits: int, signed: bool) -> Number:
    """Integers of `bits` bits, two's complement where `signed`."""
    low = -(2.0 ** (bits - 1)) if signed else 0.0
    high = low + 2**bits - 1
    return Number(f"{'i' if signed else 'u'}{bits}", bits, signed, low, high, lambda x: x.round().clip(low, high))


def _fp16(x: Array) -> Array:
    xp = namespace(x)
    return xp.astype(xp.astype(x, xp.float16), xp.float32)


def _bf16(x: Array) -> Array:
    """The top 16 bits, rounded half to even; NumPy has no bfloat16."""
    bits = x.view(namespace(x).int32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000).view(namespace(x).float32)


def _e8m0(x: Array) -> Array:
    """The nearest power of two, 2^-126 at least (no subnormals): adding 2 - sqrt(2) carries above sqrt(2)."""
    xp = namespace(x)
    power = ((x.view(xp.int32) + 0x4AFB0C) & 0x7F800000).view(xp.float32)
    return xp.where(x > 0, xp.clip(power, 2.0**-126, None), xp.zeros_like(x))


_ALL = (
    _float("fp32", 32, float(2**128 - 2**104), lambda x: x, digits=24, finest=2.0**-149),
    replace(_float("fp16", 16, 65504.0, _fp16, digits=11, finest=2.0**-24), least=2.0**-20),
    _float("bf16", 16, float(2**128 - 2**120), _bf16, digits=8, finest=2.0**-133),
    _float("e8m0", 8, 2.0**127, _e8m0, signed=False),
    _float("e4m3", 8, E4M3.high, E4M3.round, signed=False, digits=4, finest=2.0**-9),
    *(_integer(bits, signed) for signed in (False, True) for bits in range(1, 9)),
    Number("one", 0, False, 1.0, 1.0, lambda x: namespace(x).ones_like(x)),
)
NUMBERS = {number.name: number for number in _ALL}
"""By name: fp32 fp16 bf16 e8m0 e4m3, the integers u1 ... u8 and i1 ... i8, and "one", which is 1 and takes no bits."""


@dataclass(frozen=True)
class Level:
    """One level of numbers: the weights that share one, and its type."""

    block: Block
    type: str

    def __post_init__(self) -> None:
        if self.type not in NUMBERS:
            raise RecipeError(
                f"no type of scale is called {self.type!r}", where="scale", fix=f"Choose one of: {', '.join(NUMBERS)}"
            )

    @property
    def number(self) -> Number:
        """What is stored."""
        return NUMBERS[self.type]

    def count(self, rows: int, columns: int) -> int:
        """How many numbers a [rows, columns] matrix has at this level."""
        if self.block == "tensor":
            return 1
        return rows if self.block == "channel" else rows * (columns // self.block)


@dataclass(frozen=True)
class Levels:
    """Levels of numbers, innermost first; what a block reads back is the product of its numbers of all levels.

    One level is a plain scale. Two are a small number per block times a factor per larger block (GGUF's K-quants) or
    per tensor (NVFP4). `zeros` says whether 0 may be stored, as shifts, zero points and the scales of codes without a
    zero need it. Elsewhere a number that would become 0 is stored as 1: the block of such a scale decodes to exact
    zeros, never to NaN.

    >>> Levels.of((128, "fp16")).bits(1, 128), Levels.of((32, "u6"), (256, "fp16")).bits(1, 256)
    (16, 64)
    """

    levels: tuple[Level, ...]
    zeros: bool = False

    def __post_init__(self) -> None:
        """Every block must hold whole blocks of the level inside it."""
        for inner, outer in zip(self.levels, self.levels[1:], strict=False):
            whole = isinstance(inner.block, int) and isinstance(outer.block, int) and outer.block % inner.block == 0
            wider = {"tensor": 2, "channel": 1}
            if not (whole or wider.get(str(outer.block), 0) > wider.get(str(inner.block), 0)):
                raise ValueError(f"blocks of {outer.block} do not hold blocks of {inner.block}")

    @classmethod
    def of(cls, *levels: tuple[Block, str], zeros: bool = False) -> Levels:
        """Levels from (block, type) pairs, innermost first."""
        return cls(tuple(Level(block, type) for block, type in levels), zeros)

    @property
    def block(self) -> Block:
        """The innermost block."""
        return self.levels[0].block

    @property
    def type(self) -> str:
        """The innermost type."""
        return self.levels[0].type

    @property
    def signed(self) -> bool:
        """Whether each block may have a sign of its own."""
        return self.levels[0].number.signed

    @cached_property
    def outside(self) -> Levels:
        """The levels around the innermost; their factors are never 0."""
        return Levels(self.levels[1:])

    def fits(self, columns: int) -> bool:
        """Whether rows of `columns` weights divide into whole blocks of every level."""
        return all(columns % level.block == 0 for level in self.levels if isinstance(level.block, int))

    def bits(self, rows: int, columns: int) -> int:
        """Bits of all levels of a [rows, columns] matrix."""
        return sum(level.count(rows, columns) * level.number.bits for level in self.levels)

    def fit(self, wanted: Array) -> tuple[Array, ...]:
        """Outer factors for the `wanted` numbers, float32 [rows, groups]: one array per level, () for one level.

        Each maps the largest number of its block to the end of the inner type that reaches furthest (63 of u6, -32 of
        i6), and is rounded as it will be read back, all levels around it included. Shapes: [rows, blocks], [1, 1] for
        one per tensor.
        """
        if len(self.levels) == 1:
            return ()
        xp = namespace(wanted)
        number, around = self.levels[0].number, self.levels[1].block
        if around == "tensor":
            parts = xp.reshape(wanted, (1, 1, -1))
        elif isinstance(around, int) and isinstance(self.block, int):
            parts = xp.reshape(wanted, (wanted.shape[0], -1, around // self.block))
        else:
            parts = xp.reshape(wanted, (wanted.shape[0], 1, -1))
        high, low = xp.max(parts, axis=-1), xp.min(parts, axis=-1)
        factor = xp.where(high >= -low, high, low) / (number.low if -number.low > number.high else number.high)
        if -number.low == number.high:
            factor = xp.abs(factor)
        further = self.outside.fit(factor)
        return (self.outside.round(factor, further), *further)

    def round(self, wanted: Array, outer: tuple[Array, ...] = ()) -> Array:
        """The `wanted` numbers (float32 [rows, groups]) as they will be read back, given `outer` factors of `fit`.

        The sign is kept where the type has one. Scales are rounded *before* codes are chosen. Raises ValueError where
        a factor is missing.
        """
        if len(outer) != len(self.levels) - 1:
            raise ValueError(f"{len(outer)} factors for {len(self.levels)} levels")
        xp = namespace(wanted)
        number, factor = self.levels[0].number, self._spread(outer, wanted)
        x = wanted if factor is None else wanted / factor
        found = number.round(x)
        if not self.zeros:
            one = xp.ones_like(found)
            found = xp.where(found == 0, xp.where(x < 0, -one, one) if number.low < 0 else one, found)
        return found if factor is None else found * factor

    @staticmethod
    def _spread(outer: tuple[Array, ...], x: Array) -> Array | None:
        """The factor of each number of `x`: those of the next level, repeated along the row."""
        if not outer:
            return None
        factor, times = outer[0], x.shape[-1] // outer[0].shape[-1]
        return factor if times == 1 or factor.shape[-1] == 1 else namespace(x).repeat(factor, times, axis=-1)


def rows_of(outer: tuple[Array, ...], start: int, stop: int) -> tuple[Array, ...]:
    """The factors of rows [start, stop); one for the whole tensor stays."""
    return tuple(factor if factor.shape[0] == 1 else factor[start:stop] for factor in outer)
