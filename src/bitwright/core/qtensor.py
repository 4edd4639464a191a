"""A quantized matrix: codes, scales, zeros, shifts, and the one `decode()`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bitwright.core.array import Array, float32, namespace
from bitwright.core.format import Format
from bitwright.core.rotation import rotate, rotate_back
from bitwright.core.scaling import rows_of


@dataclass(frozen=True)
class QTensor:
    """w[r, c] = scale[r, g] * (value(codes[r, c]) - zero[r, g]) + shift[r, g], where g is the block of column c.

    Where the format is `rotated`, these are the rows of `rotation.rotate`(w).

    `codes` uint8 [rows, columns]; `scale`, and if present `zero` and `shift`, float32 [rows, groups] (or [1, 1] for
    one block per tensor), already as they will be read back: rounded to their stored type, all levels multiplied.
    `table` float32 [rows, groups, levels] holds the values where each block has its own. `outer` and `shift_outer` are
    the factors that `Levels.fit` chose for scales and shifts of several levels, () for one. `notes` are fallbacks that
    the method had to take; they belong in the report.
    """

    format: Format
    codes: Array
    scale: Array
    zero: Array | None = None
    shift: Array | None = None
    table: Array | None = None
    outer: tuple[Array, ...] = ()
    shift_outer: tuple[Array, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return (int(self.codes.shape[0]), int(self.codes.shape[1]))

    def decode(self) -> Array:
        """The float32 matrix [rows, columns] that these codes mean."""
        xp = namespace(self.codes)
        value = self.format.code.decode(self.format.blocks(self.codes), self.table)
        if self.zero is not None:
            value -= self.zero[..., None]
        value *= self.scale[..., None]
        if self.shift is not None:
            value += self.shift[..., None]
        value = xp.reshape(value, self.shape)
        return rotate_back(value) if self.format.rotated else value

    def part(self, start: int, stop: int) -> QTensor:
        """Rows [start, stop) as a matrix of their own (not for formats with one block per tensor).

        `start` is a multiple of the code's `rows`, and so is `stop` unless it is the last.
        """

        def cut(x: Array | None) -> Array | None:
            return None if x is None else x[start:stop]

        return replace(
            self,
            codes=self.codes[start:stop],
            scale=self.scale[start:stop],
            zero=cut(self.zero),
            shift=cut(self.shift),
            table=cut(self.table),
            outer=rows_of(self.outer, start, stop),
            shift_outer=rows_of(self.shift_outer, start, stop),
        )

    @staticmethod
    def stack(parts: Sequence[QTensor]) -> QTensor:
        """The rows of several matrices of one format, one below the other, with all their notes."""
        first = parts[0]
        if len(parts) == 1:
            return first
        xp = namespace(first.codes)

        def join(arrays: Sequence[Array | None]) -> Array | None:
            return None if arrays[0] is None else xp.concat(list(arrays))

        return replace(
            first,
            codes=join([p.codes for p in parts]),
            scale=join([p.scale for p in parts]),
            zero=join([p.zero for p in parts]),
            shift=join([p.shift for p in parts]),
            table=join([p.table for p in parts]),
            outer=tuple(join(factors) for factors in zip(*(p.outer for p in parts), strict=True)),
            shift_outer=tuple(join(factors) for factors in zip(*(p.shift_outer for p in parts), strict=True)),
            notes=tuple(dict.fromkeys(note for p in parts for note in p.notes)),
        )

    def stored_bits(self, word: int = 8) -> int:
        """Bits on disk: codes padded to words, tables, and every level of scales, zeros and shifts."""
        return self.format.stored_bits(*self.shape, word)


def encode(
    w: Array,
    format: Format,
    scale: Array,
    zero: Array | None = None,
    shift: Array | None = None,
    outer: tuple[Array, ...] = (),
    shift_outer: tuple[Array, ...] = (),
) -> QTensor:
    """The nearest code for every weight of `w` [rows, columns], given scales that `Levels.round` has already seen.

    k = nearest((w - shift) / scale + zero): for the integer grids this is clamp(round(w / s) + z, qmin, qmax).
    """
    x = format.blocks(rotate(float32(w)) if format.rotated else float32(w))
    if shift is not None:
        x = x - shift[..., None]
    xp = namespace(w)
    x = x / divisor(scale)[..., None]
    if zero is not None:
        # An integer zero commutes with rounding; adding it first saves a pass and changes no code but exact ties.
        x += zero[..., None]
    codes = xp.reshape(format.code.nearest(x), w.shape)
    return QTensor(format, codes, scale, zero, shift, outer=outer, shift_outer=shift_outer)


def divisor(scale: Array) -> Array:
    """`scale`, with 1 in place of 0: a block whose scale is 0 decodes to zeros whatever its codes."""
    xp = namespace(scale)
    return xp.where(scale == 0, xp.ones_like(scale), scale)
