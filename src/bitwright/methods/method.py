"""What a quantization method is: its name and paper, its options, what it must see, and how it chooses codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from bitwright.core.array import Array
from bitwright.core.format import Format
from bitwright.core.qtensor import QTensor
from bitwright.core.stats import Stats

Needs = Literal["nothing", "moments", "samples"]
Scope = Literal["matrix", "block", "model"]


class Options(BaseModel):
    """What a method may be told. A method that takes options has a subclass; its fields are checked by the recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


@dataclass(frozen=True)
class Samples:
    """What one layer is fed and what it should answer, row by row.

    `x` [tokens, groups * columns] are inputs of the quantized network, `target` [tokens, rows] the float layer's
    outputs before its activation (None: what the weights given beside it answer), `bias` [rows] its bias, if it has
    one. `relu`: only what passes a ReLU after the layer counts.
    """

    x: Array
    target: Array | None = None
    bias: Array | None = None
    relu: bool = False
    groups: int = 1


@dataclass(frozen=True)
class Seen:
    """What calibration saw of a matrix's input: as much as the method needs and the model can show.

    `shared` is what the method's `prepare` made of `stats`: matrices with one input share it. `curvature` [rows, rows]
    is E[g g^T] over tokens, where g is the slope of -log p at the layer's output, for the rows that the method is
    given; None: every output counts alike.
    """

    stats: Stats | None = None
    shared: Any = None
    samples: Samples | None = None
    curvature: Array | None = None


Solve = Callable[[Array, Format, Seen, Any], QTensor]
"""(w [rows, columns], format, seen, options) -> the quantized matrix."""


def fits_fixed(format: Format, *, shifts: bool = False) -> str | None:
    """Why a method that chooses among given values, and `shifts` where it says so, cannot take `format`; else None."""
    if format.code.table_bits:
        return f"cannot fit the codebook of {format.name}"
    if format.code.rows > 1:
        return f"rounds each weight by itself, and codes of {format.name} go together"
    return None if shifts or format.shift is None else f"cannot choose the shifts of {format.name}"


@dataclass(frozen=True)
class Method:
    """One method; a file of this folder, or an entry point `bitwright.methods` of another package, provides it.

    `solve` takes and returns one matrix where `scope` is "matrix". Of scope "block" it takes one decoder block, of
    scope "model" the whole model as the model's kind hands it over, and yields its steps; a kind of model says which
    scopes and needs it serves. `needs` is what `solve` cannot do without: where a matrix shows none of it, `fallback`
    takes its place, by name. Of other scopes it is also what finds the codes at which `solve` begins, where a kind of
    model wants that.
    `moments` says that second moments of the inputs are used where they are known anyhow, `diagonal` that those of each
    input by itself (`Stats.apart`) serve as well as they can.
    """

    name: str
    title: str
    source: str
    """The paper or specification."""
    solve: Callable[..., Any]
    options: type[Options] = Options
    needs: Needs = "nothing"
    scope: Scope = "matrix"
    moments: bool = False
    diagonal: bool = False
    libraries: int = 0
    """Bytes of memory that libraries take which it alone imports."""
    weighs: bool = False
    """Whether it makes use of `Seen.curvature`."""
    fits: Callable[[Format], str | None] = fits_fixed
    """Why it cannot take a format; None where it can."""
    prepare: Callable[[Stats, Any], Any] | None = None
    """(stats, options) -> what all matrices with this input share."""
    work: Callable[[Any], float] = lambda options: 0.0
    """options -> products of a matrix by its Hessian that solving costs: what the plan's time is estimated from."""
    passes: Callable[[Any], float] = lambda options: 0.0
    """options -> passes there and back that learning costs: of one batch through the block; of scope "model", of all
    text through the model; as `work`."""
    fallback: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a method that could not be replaced where a matrix shows nothing."""
        if self.scope != "model" and self.needs != "nothing" and self.fallback is None:
            raise ValueError(f"method {self.name} needs {self.needs}, and names no fallback for a matrix without")
