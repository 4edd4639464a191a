"""One sweep over all codes on plain arrays: where nothing is compiled, and for tensors on a GPU."""

from __future__ import annotations

from bitwright.core.array import Array, light, namespace, subtract_product
from bitwright.methods.descent.outputs import ROWS, Outputs
from bitwright.methods.gptq import BLOCK, Steps


def visit_codes(
    values: Array,
    decoded: Array,
    pull: Array,
    hessian: Array,
    steps: Steps,
    order: Array,
    outputs: Outputs | None = None,
) -> None:
    """One sweep over the columns in `order`, in place: `values`, `decoded`, `pull` = H (x - decoded) [columns, rows].

    With all else fixed, the best real value of a weight is decoded + pull / H[i, i]; the grid value nearest to it is
    the best code, because the objective is a parabola in each weight. With `outputs`, the pull is that of pull G / G_ii
    and `ROWS` rows move at once: their moves in one column are kept if they lower the objective together, or else the
    one that lowers it most.
    """
    rows = values.shape[1]
    if outputs is None:
        _visit(values, decoded, pull, hessian, steps, order, slice(0, rows), None)
        return
    for start in range(0, rows, ROWS):
        _visit(values, decoded, pull, hessian, steps, order, slice(start, min(start + ROWS, rows)), outputs)


def _visit(
    values: Array,
    decoded: Array,
    pull: Array,
    hessian: Array,
    steps: Steps,
    order: Array,
    at: slice,
    outputs: Outputs | None,
) -> None:
    """A sweep over some rows."""
    xp = namespace(values)
    n, rows = values.shape
    power = [float(p) for p in xp.linalg.diagonal(hessian)]
    part = steps.rows(at)
    values_, decoded_ = light(values, rows)[:, at], light(decoded, rows)[:, at]
    toward = None if outputs is None else outputs.curvature[:, at] / xp.linalg.diagonal(outputs.curvature)[at]
    inner = None if toward is None else light(toward, rows)[at]
    for start in range(0, n, BLOCK):
        columns = order[start : start + BLOCK]
        force = xp.take(pull, columns, axis=0)
        force_ = light(force[:, at] if toward is None else force @ toward, rows)
        block = xp.take(hessian, columns, axis=1)
        inside = light(xp.take(block, columns, axis=0), rows)
        moved = xp.zeros_like(force[:, at])
        moved_ = light(moved, rows)
        felt = moved_ if inner is None else namespace(moved_).zeros_like(moved_)
        for k, column in enumerate(int(c) for c in columns):
            own = force_[k] - inside[k, :k] @ felt[:k] if k else force_[k]
            value, new = part.round(decoded_[column] + own / power[column], column)
            move = new - decoded_[column]
            if inner is not None:
                assert outputs is not None
                weight = light(xp.linalg.diagonal(outputs.curvature)[at], rows)
                kept = _falling(move, own / power[column], inner, weight)
                move = move * kept
                value = namespace(move).where(kept, value, values_[column])
                new = namespace(move).where(kept, new, decoded_[column])
                felt[k] = move @ inner
            values_[column], moved_[k] = value, move
            decoded_[column] = new
        subtract_product(pull[:, at], block, moved)


def _falling(move: Array, best: Array, inner: Array, weight: Array) -> Array:
    """Which moves of some rows in one column to make: all if the objective falls, else the best one alone.

    `best` are the moves without rounding, each with the others at rest; G_ij = inner[i, j] `weight`[j].
    """
    xp = namespace(move)
    gain = weight * move * (2 * best - move)
    if float((weight * move * (2 * best - move @ inner)).sum()) >= 0:
        return xp.ones_like(gain) > 0
    return xp.arange(gain.shape[0], device=gain.device) == xp.argmax(gain)
