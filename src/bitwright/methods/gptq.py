"""Second-order error feedback: each column is rounded after the errors of earlier columns are compensated in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import Field

from bitwright.core.array import Array, contiguous, float32, light, like, namespace
from bitwright.core.cholesky import cholesky
from bitwright.core.format import Format
from bitwright.core.qtensor import QTensor, divisor
from bitwright.core.stats import Stats
from bitwright.errors import RecipeError, TensorError
from bitwright.methods import method
from bitwright.methods.method import Method
from bitwright.methods.mse import search

BLOCK = 32
"""Columns rounded one by one before their errors are carried to all later columns in one matrix product."""


LEAST = 1e-6
"""The first damping above one that is too small: about where float32 rounding of the moments ends."""
SOUND_INPUTS = "Look for huge weights in the layers before it, or keep it float by a rule"


class Options(method.Options):
    """Options of error feedback."""

    damping: float | None = Field(None, gt=0, le=1)
    """Share of the Hessian's mean diagonal added to it before it is factorised; None: what `damp` says."""
    order: Literal["natural", "activation"] = "activation"
    """Order in which columns are rounded: as they stand, or largest input power first."""


@dataclass(frozen=True)
class Factor:
    """H + damping * mean(diag H) * I, columns as they stand; U, unit upper triangular, and diag D of H = U D U^T in
    `order`."""

    hessian: Array
    upper: Array
    order: Array
    rest: Array
    notes: tuple[str, ...] = ()


def quantize(
    w: Array,
    format: Format,
    stats: Stats | None = None,
    *,
    damping: float | None = None,
    order: Literal["natural", "activation"] = "activation",
    factor: Factor | None = None,
) -> QTensor:
    """Quantize `w` [rows, columns] so that the layer's output error tr(E H E^T), not the weight error, stays small.

    Columns are taken in `order` ("activation": largest E[x^2] first). Column k is rounded to the grid after adding
    sum_{j<k} e_j U[j, k], the share of earlier errors that it can still make up for, where H = U D U^T. Scales are
    searched per block *before* any code is chosen and never move here. `factor` passes in one that other matrices with
    the same input already paid for.

    Sources: GPTQ (Frantar et al. 2023, arXiv 2210.17323) in its equivalent LDL form (QuIP, Chee et al. 2023,
    arXiv 2307.13304), which needs no inverse. Raises RecipeError without stats or for a codebook, and what `factorise`
    raises.
    """
    require(format, stats, "gptq")
    assert stats is not None
    factor = factorise(stats, damping, order) if factor is None else factor
    scale, zero, outer = search(w, format, stats)
    columns = feed_back(float32(w), format, scale, zero, factor)
    return QTensor(format, columns, scale, zero, outer=outer, notes=factor.notes)


def require(format: Format, stats: Stats | None, method: str) -> None:
    """Raise RecipeError where a calibrated method got no stats, or a format whose values are free."""
    if stats is None:
        fix = "Give --calib, or use --method rtn"
        raise RecipeError("needs calibration data", where=f"method {method}", fix=fix, key="layer.method")
    if format.code.table_bits:
        raise RecipeError(
            f"cannot fit the codebook of {format.name}", where=f"method {method}", fix="Use --method lloyd",
            key="layer.method",
        )  # fmt: skip


def damp(stats: Stats) -> float:
    """The damping that suits a record: columns per token, from 0.01 to 1; 0.01 where each input is known by itself.

    Errors fed back by second moments of few tokens fit those tokens, not the next ones. With half of the calibration
    text recorded and the other half to judge by, this came within 5 % of the best damping in nearly all layers of two
    models, from 2 to 32 tokens per column, where a constant lost up to 28 % (docs/solver.md).
    """
    return 0.01 if stats.apart else float(min(max(stats.power.shape[0] / max(stats.n, 1), 0.01), 1.0))


def factorise(stats: Stats, damping: float | None = None, order: str | Array = "activation") -> Factor:
    """The factor of the damped Hessian; without a `damping`, that of `damp`.

    `order` is one of `Options.order`, or says itself which column is the first, which the next. Damping doubles, with a
    note, until the matrix is definite.

    Raises TensorError for a Hessian that is not finite, or indefinite beyond what rounding explains.
    """
    xp = namespace(stats.moment)
    hessian, power = stats.hessian, stats.power
    columns = power.shape[0]
    natural = xp.arange(columns, dtype=xp.int64, device=power.device)
    notes: tuple[str, ...] = ()
    mean = float(power.sum()) / columns
    if not math.isfinite(mean):
        raise TensorError("the squares of its inputs overflow float32", fix=SOUND_INPUTS)
    if not mean > 0:
        notes += ("the layer's input is all zeros: rounded to nearest",)
        mean, hessian = 1.0, like(np.eye(columns), power)
    permutation = order
    if isinstance(order, str):
        permutation = xp.argsort(power, descending=True, stable=True) if order == "activation" else natural
    if permutation is not natural:
        hessian = xp.take(xp.take(hessian, permutation, axis=0), permutation, axis=1)  # its own: changed below
    damped = xp.asarray(hessian, copy=True) if hessian is stats.hessian else hessian
    damping = damp(stats) if damping is None else damping
    upper, rest, used = upper_factor(damped, damping, mean, "the second moments of its inputs are indefinite")
    if used != damping:
        notes += (f"singular Hessian: damping raised from {damping:g} to {used:g}",)
    if permutation is not natural:
        back = xp.argsort(permutation)
        damped = damped[back[:, None], back[None, :]]
    return Factor(damped, upper, permutation, rest, notes)


def upper_factor(matrix: Array, damping: float, mean: float, wrong: str) -> tuple[Array, Array, float]:
    """U, unit upper triangular, and diag D of matrix + damping * mean * I = U D U^T, and the damping that it took.

    Damps `matrix` in place, twice as much each time until it is definite. Raises TensorError with the text `wrong`
    where even a whole `mean` does not help.
    """
    xp = namespace(matrix)
    natural = xp.arange(matrix.shape[0], dtype=xp.int64, device=matrix.device)
    diagonal = xp.asarray(xp.linalg.diagonal(matrix), copy=True)
    used = damping
    while True:
        matrix[natural, natural] = diagonal + used * mean
        lower = cholesky(xp.flip(matrix))
        if lower is not None:
            break
        if used >= 1:
            raise TensorError(f"{wrong}, with damping {used:g} too", fix=SOUND_INPUTS)
        used = min(max(used * 2, LEAST), 1.0)
    upper = xp.flip(lower)
    del lower  # as wide as the layer, squared
    size = xp.asarray(xp.linalg.diagonal(upper), copy=True)
    return upper / size[None, :], size * size, used


def feed_back(w: Array, format: Format, scale: Array, zero: Array | None, factor: Factor) -> Array:
    """Codes (uint8 [rows, columns]) of `w` under `factor`, with fixed scale and zero [rows or 1, groups].

    All arrays are held transposed, a column of the matrix being one contiguous row. Products of blocks run in `w`'s
    library, the loop over columns on `light` views of the same memory.
    """
    xp = namespace(w)
    rows, n = w.shape
    steps = Steps.of(format, scale, zero, factor.order, rows, n)
    x, upper = in_order(w, factor.order), factor.upper
    values, error = xp.zeros_like(x), xp.zeros_like(x)
    x_, upper_, values_, error_ = (light(each, rows) for each in (x, upper, values, error))
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        carried = light(x[start:stop] + upper[:start, start:stop].T @ error[:start], rows)
        inside = upper_[start:stop, start:stop].T
        for i in range(start, stop):
            k = i - start
            target = carried[k] + inside[k, :k] @ error_[start:i] if k else carried[k]
            values_[i], decoded = steps.round(target, i)
            error_[i] = x_[i] - decoded
    return codes_of(values, format, factor.order)


def in_order(w: Array, order: Array) -> Array:
    """The columns of `w` [rows, columns] in `order`, as rows [columns, rows]."""
    return contiguous(namespace(w).take(w, order, axis=1).T)


def codes_of(values: Array, format: Format, order: Array) -> Array:
    """Codes (uint8 [rows, columns]) of grid values [columns, rows] whose rows are columns in `order`."""
    xp = namespace(values)
    return contiguous(xp.take(format.grid.nearest(values), xp.argsort(order), axis=0).T)


@dataclass(frozen=True)
class Steps:
    """Scale, zero and shift of each column, in the order in which columns are visited: [groups, rows], and their
    groups. There is no zero where there is a shift."""

    format: Format
    scale: Array
    zero: Array | None
    group: list[int]
    may_be_zero: bool
    shift: Array | None = None

    @classmethod
    def of(
        cls,
        format: Format,
        scale: Array,
        zero: Array | None,
        order: Array,
        rows: int,
        columns: int,
        shift: Array | None = None,
    ) -> Steps:
        """From scale, zero and shift [rows or 1, groups]; copies, `light` where the matrix is."""
        group = [int(i) // format.block_size(columns) for i in order]

        def turn(numbers: Array | None) -> Array | None:
            if numbers is None:
                return None
            numbers = light(numbers, rows)
            return namespace(numbers).asarray(numbers.T, copy=True)

        return cls(format, turn(scale), turn(zero), group, bool((scale == 0).any()), turn(shift))

    def rows(self, rows: slice) -> Steps:
        """Those of some rows."""
        if self.scale.shape[1] == 1:
            return self
        zero, shift = (None if part is None else part[:, rows] for part in (self.zero, self.shift))
        return replace(self, scale=self.scale[:, rows], zero=zero, shift=shift)

    def round(self, target: Array, column: int) -> tuple[Array, Array]:
        """Grid values and decoded weights nearest to `target` [rows], with the scale of the `column`-th visited."""
        scale = self.scale[self.group[column]]
        if self.shift is not None:
            shift = self.shift[self.group[column]]
            value = self.format.grid.round((target - shift) / divisor(scale))
            return value, value * scale + shift
        if self.zero is None:
            value = self.format.grid.round(target / divisor(scale) if self.may_be_zero else target / scale)
            return value, value * scale
        zero = self.zero[self.group[column]]
        value = self.format.grid.round(target / scale + zero)
        return value, (value - zero) * scale


def prepare(stats: Stats, options: Options) -> Factor:
    """The factor that all matrices with one input share."""
    return factorise(stats, options.damping, options.order)


METHOD = Method(
    name="gptq",
    title="Error feedback, column by column",
    source="Frantar et al. 2023, arXiv 2210.17323",
    solve=lambda w, f, seen, options: quantize(
        w, f, seen.stats, damping=options.damping, order=options.order, factor=seen.shared
    ),
    options=Options,
    needs="moments",
    moments=True,
    prepare=prepare,
    work=lambda options: 2.0,
    fallback="mse",
)
