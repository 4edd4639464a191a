"""Formats: a code, and how scale, zero and shift are stored."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from bitwright.core.array import Array, namespace
from bitwright.core.code import Code
from bitwright.core.grid import Grid
from bitwright.core.scaling import Block, Levels
from bitwright.errors import RecipeError


@dataclass(frozen=True)
class Format:
    """How one matrix is stored: per block of a row, w = scale * (code's value - zero) + shift.

    The innermost block of `scale` is the block of the format. `zero` (a value of the grid) and `shift` may be absent;
    where they are there, they come once a block too. Formats by name: `formats.named`.

    >>> from bitwright.core.grid import INT
    >>> scale, zero = Levels.of((128, "fp16")), Levels.of((128, "i4"), zeros=True)
    >>> Format("int4", INT[4], scale, zero).stored_bits(512, 512) / 512**2
    4.15625
    """

    name: str
    code: Code
    scale: Levels
    zero: Levels | None = None
    shift: Levels | None = None
    rotated: bool = False
    """Whether what is scaled are the rows behind a randomised Hadamard transform, see `rotation`."""

    def __post_init__(self) -> None:
        if isinstance(self.code, Grid) and self.code.zero_code is None and not self.scale.zeros:
            raise ValueError(f"{self.code.name} has no 0, so its scale must be allowed to be 0 (Levels.zeros)")
        if any(levels.block != self.block for levels in (self.zero, self.shift) if levels):
            raise ValueError(f"{self.name}: scale, zero and shift of different blocks")

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return self.code.bits

    @property
    def grid(self) -> Grid:
        """The code, where its values are fixed and the same in all blocks; RecipeError where they are not."""
        if not isinstance(self.code, Grid):
            raise RecipeError(f"{self.name} has no fixed values", where="format",
                              fix="Choose another format or method", key="layer.format")  # fmt: skip
        return self.code

    @property
    def block(self) -> Block:
        """The weights that share a scale."""
        return self.scale.block

    def block_size(self, columns: int) -> int:
        """Weights of one row in one block (a "tensor" block spans the row and all others)."""
        return self.block if isinstance(self.block, int) else columns

    def fits(self, columns: int) -> bool:
        """Whether rows of `columns` weights divide into whole blocks."""
        return all(levels.fits(columns) for levels in (self.scale, self.zero, self.shift) if levels)

    @property
    def span(self) -> tuple[float, float]:
        """Between which sizes the largest weight of a row must be for its scale to be kept; beyond, it is clamped."""
        *inner, outer = (level.number for level in self.scale.levels)
        top = self.code.top * prod(number.high for number in inner)
        furthest = [prod(level.number.high for level in self.shift.levels)] if self.shift else []
        return top * outer.least, min([top * outer.high, *furthest])

    def blocks(self, w: Array) -> Array:
        """`w` [rows, columns] viewed as [rows, groups, size], or [1, 1, rows * columns] for one block per tensor."""
        xp = namespace(w)
        if self.block == "tensor":
            return xp.reshape(w, (1, 1, -1))
        rows, columns = w.shape
        return xp.reshape(w, (rows, -1, self.block_size(columns)))

    def block_count(self, rows: int, columns: int) -> int:
        """Blocks, hence scales, of a [rows, columns] matrix."""
        return self.scale.levels[0].count(rows, columns)

    def stored_bits(self, rows: int, columns: int, word: int = 8) -> int:
        """Bits on disk of a [rows, columns] matrix: codes (rows padded to words), tables, all levels."""
        codes = rows * -(-self.code.row_bits(columns) // word) * word
        tables = self.block_count(rows, columns) * self.code.table_bits
        numbers = [levels.bits(rows, columns) for levels in (self.scale, self.zero, self.shift) if levels]
        return codes + tables + sum(numbers)
