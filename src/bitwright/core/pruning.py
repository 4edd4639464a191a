"""What a matrix can do without: inputs that are taken out, and how the others make up for them.

Of y = W x, x of d inputs, some are removed for good. Those that remain, S, can answer best with

    W' = W_S + (W_R M_RS) M_SS^-1,   M = E[x x^T],

where R are the removed ones: least squares, in closed form. Which ones go is decided one after another: with the
others refitted, removing input j costs the output, weighed by G,

    (w_j^T G w_j) / [M^-1]_jj,

which is the optimal brain surgeon's rule (Hassibi and Stork 1992) for a column at a time; for inputs that go together
(those of an attention head) a block of M^-1 is inverted instead. W and M^-1 follow by elimination.
"""

from __future__ import annotations

from collections.abc import Sequence

from bitwright.core.array import Array, float32, like, namespace
from bitwright.core.cholesky import cholesky
from bitwright.core.drift import Choice, Drift, make_up
from bitwright.core.stats import Stats
from bitwright.errors import TensorError

ROUNDS = 256
"""Rounds of an elimination, at most: in each the cheapest go, then the costs of the others are computed again."""


def eliminate(w: Array, moment: Array, keep: int, size: int = 1, curvature: Array | None = None) -> list[int]:
    """Numbers of the `keep` groups of inputs that remain, in order; a group is `size` inputs that follow one another.

    `w` is [rows, d], `moment` the positive definite E[x x^T] [d, d], `curvature` G [rows, rows], how much outputs and
    pairs of them count (None: all alike).
    """
    xp = namespace(w)
    inverse = _inverse(moment)
    z = float32(w) if curvature is None else _root(curvature).T @ float32(w)
    left = list(range(w.shape[1] // size))
    gone = len(left) - keep
    step = max(1, -(-gone // ROUNDS))
    while gone > 0:
        costs = _costs(z, inverse, size)
        order = [int(i) for i in xp.argsort(costs, stable=True)[: min(step, gone)]]
        place = [i * size + k for i in order for k in range(size)]
        rest = [i for i in range(z.shape[1]) if i not in set(place)]
        out, stay = like(place, w, xp.int64), like(rest, w, xp.int64)
        columns = xp.take(inverse, out, axis=1)  # [d, removed]
        solved = xp.linalg.solve(xp.take(columns, out, axis=0), columns.T)  # [removed, d]
        z = xp.take(z, stay, axis=1) - xp.take(z, out, axis=1) @ xp.take(solved, stay, axis=1)
        inner = xp.take(xp.take(inverse, stay, axis=0), stay, axis=1)
        inverse = inner - xp.take(columns, stay, axis=0) @ xp.take(solved, stay, axis=1)
        taken = set(order)
        left = [group for i, group in enumerate(left) if i not in taken]
        gone -= len(order)
    return left


def weighed(w: Array, moment: Array, size: int = 1, curvature: Array | None = None) -> Array:
    """What each group of inputs adds to the output by itself, weighed: tr(G W_B M_BB W_B^T) [groups].

    With the G of a network's loss that is its Taylor importance, factor by factor.
    """
    xp = namespace(w)
    z = float32(w) if curvature is None else _root(curvature).T @ float32(w)
    groups = w.shape[1] // size
    blocks = _blocks(moment, size)
    parts = xp.permute_dims(xp.reshape(z, (z.shape[0], groups, size)), (1, 0, 2))
    return xp.sum((parts @ blocks) * parts, axis=(1, 2))


def loudness(moment: Array, size: int = 1) -> Array:
    """Mean square of each group of inputs [groups]: importance by activation alone."""
    xp = namespace(moment)
    return xp.sum(xp.reshape(xp.linalg.diagonal(moment), (-1, size)), axis=1)


def best(scores: Array, keep: int) -> list[int]:
    """Numbers of the `keep` largest scores, in order; of equal ones the first."""
    xp = namespace(scores)
    return sorted(int(i) for i in xp.argsort(-scores, stable=True)[:keep])


def refit(w: Array, halves: Sequence[Drift], kept: Sequence[int]) -> tuple[Array, list[Choice]]:
    """W' [rows, kept] for the inputs `kept` of `w` [rows, d], from what two halves of the tokens saw, and its choices.

    It makes up for what is removed, then for what inputs and the stream lost before (`core.drift`): each part with a
    ridge and a share that hold on the half it was not fitted on. Without removed inputs the first part is absent.
    """
    xp = namespace(w)
    stay = like(list(kept), w, xp.int64)
    gone = like([i for i in range(w.shape[1]) if i not in set(kept)], w, xp.int64)
    wide = float32(w)
    removed = xp.take(wide, gone, axis=1)
    stats, lost, drifts, residuals = [], [], [], []
    for half in halves:
        across = xp.take(half.stats.moment, stay, axis=1)
        stats.append(Stats(half.stats.n, xp.take(across, stay, axis=0)))
        lost.append(removed @ xp.take(across, gone, axis=0))
        drifts.append(wide @ xp.take(half.cross, stay, axis=1))
        if half.residual is not None:
            residuals.append(xp.take(half.residual, stay, axis=1))
    parts = [lost] if gone.shape[0] else []
    parts += [drifts] if all(bool(xp.any(half.cross != 0)) for half in halves) else []
    parts += [residuals] if len(residuals) == len(halves) else []
    return make_up(xp.take(w, stay, axis=1), stats, parts)


def damped(moment: Array, share: float) -> Array:
    """`moment` with `share` of its mean diagonal added to the diagonal; with 1 where all of it is zero."""
    xp = namespace(moment)
    mean = xp.mean(xp.linalg.diagonal(moment))
    ridge = share * (mean if float(mean) > 0 else xp.ones_like(mean))
    return moment + ridge * xp.eye(moment.shape[0], dtype=moment.dtype, device=moment.device)


def _costs(z: Array, inverse: Array, size: int) -> Array:
    """What removing each group of inputs costs once the others have made up for it [groups]."""
    xp = namespace(z)
    if size == 1:
        return xp.sum(z * z, axis=0) / xp.linalg.diagonal(inverse)
    groups = z.shape[1] // size
    blocks = _blocks(inverse, size)
    parts = xp.permute_dims(xp.reshape(z, (z.shape[0], groups, size)), (1, 2, 0))
    return xp.sum(parts * xp.linalg.solve(blocks, parts), axis=(1, 2))


def _blocks(square: Array, size: int) -> Array:
    """The squares along the diagonal [groups, size, size]."""
    xp = namespace(square)
    return xp.stack([square[i : i + size, i : i + size] for i in range(0, square.shape[0], size)])


def _inverse(moment: Array) -> Array:
    xp = namespace(moment)
    lower = cholesky(moment)
    if lower is None:
        raise TensorError(
            "the second moments of its inputs are not positive definite", fix="Give more calibration text"
        )
    inverse = xp.linalg.inv(lower)
    return inverse.T @ inverse


def _root(curvature: Array) -> Array:
    """A with A A^T = G [rows, rows], however few directions G has."""
    xp = namespace(curvature)
    values, vectors = xp.linalg.eigh(curvature)
    return vectors * xp.sqrt(xp.clip(values, 0, None))
