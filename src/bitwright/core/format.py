"""Formats: a grid, a block, and how scale and zero are stored."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from bitwright.core.array import Array, absmax, namespace
from bitwright.core.bits import packed_size
from bitwright.core.grid import E4M3, E5M2, FP4, INT, NF4, TERNARY, Grid, midrise
from bitwright.errors import RecipeError

Block = Literal["tensor", "channel"] | int
ScaleType = Literal["fp32", "fp16", "bf16", "e8m0", "e4m3"]
UNSIGNED: tuple[ScaleType, ...] = ("e8m0", "e4m3")
"""Scale types without a sign that a block could use."""
BF16_MAX = float(2**128 - 2**120)
SCALE_BITS: dict[ScaleType, int] = {"fp32": 32, "fp16": 16, "bf16": 16, "e8m0": 8, "e4m3": 8}


@dataclass(frozen=True)
class Format:
    """How one matrix is stored: per block of a row, w = scale * (grid[code] - zero) + shift.

    `block` says which weights share a scale: the whole "tensor", a "channel" (one row, one output) or a group of that
    many weights along a row. `zero` is "none" or "integer" (a value of the grid, stored in as many bits as a code).
    `learned` means the grid's values are not fixed: each block carries a codebook of 2^bits values instead of a scale.

    >>> Format("int4", INT[4], 128, "fp16", "integer").stored_bits(512, 512) / 512**2
    4.15625
    """

    name: str
    grid: Grid
    block: Block
    scale: ScaleType = "fp16"
    zero: Literal["none", "integer"] = "none"
    learned: bool = False

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return self.grid.bits

    def block_size(self, columns: int) -> int:
        """Weights of one row in one block (a "tensor" block spans the row and all others)."""
        return self.block if isinstance(self.block, int) else columns

    def fits(self, columns: int) -> bool:
        """Whether rows of `columns` weights divide into whole blocks."""
        return columns % self.block_size(columns) == 0

    def blocks(self, w: Array) -> Array:
        """`w` [rows, columns] viewed as [rows, groups, size], or [1, 1, rows * columns] for one block a tensor."""
        xp = namespace(w)
        if self.block == "tensor":
            return xp.reshape(w, (1, 1, -1))
        rows, columns = w.shape
        return xp.reshape(w, (rows, -1, self.block_size(columns)))

    def block_count(self, rows: int, columns: int) -> int:
        """Blocks, hence scales, of a [rows, columns] matrix."""
        return 1 if self.block == "tensor" else rows * (columns // self.block_size(columns))

    def stored_bits(self, rows: int, columns: int, word: int = 8) -> int:
        """Bits on disk of a [rows, columns] matrix: codes (rows padded to whole words), scales, zeros, codebooks."""
        count = self.block_count(rows, columns)
        codes = rows * packed_size(columns, self.bits, word) * word
        if self.learned:
            return codes + count * 16 * len(self.grid.values)
        zeros = self.bits if self.zero == "integer" else 0
        unit = 32 if self.scale == "e4m3" else 0
        return codes + count * (SCALE_BITS[self.scale] + zeros) + unit

    def unit(self, scale: Array) -> float:
        """The float32 factor all scales of a tensor share: it maps the largest to E4M3's top; 1 for other types."""
        return float(absmax(scale) / E4M3.high) or 1.0 if self.scale == "e4m3" else 1.0

    def round_scale(self, scale: Array, unit: float = 1.0) -> Array:
        """`scale` (float32, any shape) as it will be read back, its sign kept: apply before codes are chosen.

        A scale that would become 0 is stored as 1 (times `unit`), so that its block decodes to exact zeros and never to
        NaN. Only where the grid has no zero (midrise) it stays 0, for the same reason: `encode` never divides by it.
        """
        xp = namespace(scale)
        size = _round(xp.abs(scale) if unit == 1 else xp.abs(scale) / unit, self.scale)
        if self.grid.zero_code is not None:
            size = xp.where(size > 0, size, xp.ones_like(size))
        signed = xp.where(scale < 0, -size, size)
        return signed if unit == 1 else signed * unit


def _round(x: Array, kind: ScaleType) -> Array:
    """Positive float32 `x` rounded to the nearest number of `kind`."""
    xp = namespace(x)
    if kind == "fp16":
        return xp.astype(xp.astype(xp.clip(x, 0.0, 65504.0), xp.float16), xp.float32)
    if kind == "bf16":
        # The top 16 bits, rounded half to even; NumPy has no bfloat16.
        bits = xp.clip(x, 0.0, BF16_MAX).view(xp.int32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000).view(xp.float32)
    if kind == "e8m0":
        # The nearest exponent, -126 at least (no subnormals): adding 2 - sqrt(2) carries above sqrt(2).
        bits = xp.clip(x, 0.0, 2.0**127).view(xp.int32)
        power = ((bits + 0x4AFB0C) & 0x7F800000).view(xp.float32)
        return xp.where(x > 0, xp.clip(power, 2.0**-126, None), xp.zeros_like(x))
    if kind == "e4m3":
        return E4M3.round(x)
    return x


def named(
    name: str,
    *,
    group: Block | None = None,
    symmetric: bool = True,
    scale: ScaleType = "fp16",
) -> Format:
    """The format called `name`; `group`, `symmetric` and `scale` apply where the format leaves them open.

    Names: int1 ... int8, midrise1 ... midrise8, codebook1 ... codebook8, ternary, nf4, fp4, fp8, fp8_e5m2 and the
    fixed block formats mxfp4 (OCP MX v1.0: groups of 32, E8M0 scales) and nvfp4 (groups of 16, E4M3 scales, one
    float32 unit a tensor). Raises RecipeError for any other name.
    """
    block: Block = 128 if group is None else group
    numbered = re.fullmatch("(int|midrise|codebook)([1-8])", name)
    base, digit = numbered.groups() if numbered else ("", "")
    if base == "int":
        # One signed bit means -1 or 0, which no symmetric quantizer wants: use -1/2 and +1/2.
        grid = midrise(1) if digit == "1" and symmetric else INT[int(digit)]
        return Format(name, grid, block, scale, "none" if symmetric else "integer")
    if base == "midrise":
        return Format(name, midrise(int(digit)), block, scale)
    if base == "codebook":
        return Format(name, Grid(name, tuple(float(i) for i in range(2 ** int(digit)))), block, "fp16", learned=True)
    fixed = {
        "ternary": Format("ternary", TERNARY, block, scale),
        "nf4": Format("nf4", NF4, block, scale),
        "fp4": Format("fp4", FP4, block, scale),
        "fp8": Format("fp8", E4M3, "channel" if group is None else group, scale),
        "fp8_e5m2": Format("fp8_e5m2", E5M2, "channel" if group is None else group, scale),
        "mxfp4": Format("mxfp4", FP4, 32, "e8m0"),
        "nvfp4": Format("nvfp4", FP4, 16, "e4m3"),
    }
    if name not in fixed:
        known = "int1..int8, midrise1..8, codebook1..8, " + ", ".join(fixed)
        raise RecipeError(f"no format is called {name!r}", where="format", fix=f"Choose one of: {known}")
    return fixed[name]


def with_block(format: Format, block: Block) -> Format:
    """The same format with another block."""
    return replace(format, block=block)
