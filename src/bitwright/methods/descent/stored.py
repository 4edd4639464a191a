"""What is stored of scales and shifts while they are being chosen."""

from __future__ import annotations

from dataclasses import dataclass

from bitwright.core.array import Array, contiguous, like, namespace
from bitwright.core.qtensor import QTensor
from bitwright.methods.descent.structure import Structure
from bitwright.methods.gptq import Steps


@dataclass(frozen=True)
class Scales:
    """What is stored of scales and shifts: float32 factors [rows, super-blocks] and whole numbers [rows, blocks].

    A scale is factor * scale, a shift around * level; without factors of their own, the whole numbers are 1.
    """

    structure: Structure
    factor: Array
    around: Array
    scale: Array
    level: Array

    @classmethod
    def empty(cls, structure: Structure, x: Array) -> Scales:
        """To be filled, for a matrix of as many rows as `x` and in its library."""
        xp = namespace(x)
        counts = (structure.columns // size for size in (structure.width, structure.size) for _ in range(2))
        return cls(structure, *(xp.ones((x.shape[0], n), dtype=xp.float32, device=x.device) for n in counts))

    @property
    def steps(self) -> Array:
        """The scale of each block, [rows, blocks]."""
        return self._spread(self.factor) * self.scale

    @property
    def shifts(self) -> Array | None:
        """The shift of each block, [rows, blocks]."""
        return None if self.structure.format.shift is None else self._spread(self.around) * self.level

    def of_columns(self, columns: Array) -> Steps:
        """For sweeps over codes, [blocks, rows]; `columns` are 0, 1, 2, ..."""
        return Steps.of(
            self.structure.format, self.steps, None, columns, len(self.scale), len(columns), shift=self.shifts
        )

    def _spread(self, factor: Array) -> Array:
        return namespace(factor).repeat(factor, self.scale.shape[1] // factor.shape[1], axis=-1)

    def qtensor(self, values: Array, notes: tuple[str, ...]) -> QTensor:
        """The matrix of these scales and grid values [rows, columns], in the library of `values`."""
        format, shift = self.structure.format, self.shifts
        outer, around = (() if self.structure.direct else (like(x, values),) for x in (self.factor, self.around))
        return QTensor(
            format,
            contiguous(format.grid.nearest(values)),
            like(self.steps, values),
            shift=None if shift is None else like(shift, values),
            outer=outer,
            shift_outer=() if shift is None else around,
            notes=notes,
        )
