"""Embeddings of a float and another network: how far each turned, and how well pairs tell one identity from two.

Verification after the protocol of Labeled Faces in the Wild (Huang et al., UMass 07-49, 2007): two samples are called
the same where the cosine of their embeddings reaches a threshold; the threshold is chosen on nine tenths of the pairs
and judged on the last tenth, ten times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitwright.errors import DataError
from bitwright.models.samples.pairs import Pair
from bitwright.models.samples.preprocess import Array
from bitwright.models.tasks.estimate import Change, Mean, Share

FOLDS = 10
FAR = 0.01
"""Share of false acceptances at which true ones are counted."""
ENOUGH = 100
"""Pairs of two identities from which on that share means something."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One row per sample of both networks, of length 1 (or 0): float64 [samples, width]; adds over batches."""

    before: Array
    after: Array

    @classmethod
    def of(cls, before: Array, after: Array) -> Embeddings:
        """From what the networks gave, [samples, width]."""
        return cls(_unit(before), _unit(after))

    def __add__(self, other: Embeddings) -> Embeddings:
        return Embeddings(np.concatenate([self.before, other.before]), np.concatenate([self.after, other.after]))

    @property
    def cosines(self) -> Array:
        """Of each sample, between the two networks; 0 where one of them gave nothing but zeros."""
        found: Array = np.clip((self.before * self.after).sum(axis=1), -1, 1)
        return found

    def summary(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        cosines = self.cosines
        mean = Mean.of(cosines).estimate
        return {
            "embeddings": len(cosines),
            "width": self.before.shape[1],
            "cosine": mean.value,
            "cosine_interval": mean.interval,
            "cosine_worst": float(cosines.min()),
        }

    def lines(self) -> list[str]:
        """The same in words."""
        mean = Mean.of(self.cosines).estimate
        return [f"  cosine float, int   {mean.value:.5f} ± {mean.interval:.5f} mean, {self.cosines.min():.5f} at worst"]


@dataclass(frozen=True)
class Verification:
    """Pairs told apart by both networks: accuracy with a threshold of its own each, and with the float network's.

    `rates` are the equal error rate and, of enough pairs, the true acceptances at FAR false ones: {name: (float,
    quantized)}.
    """

    before: Share
    after: Share
    change: Change
    kept: Share
    rates: dict[str, tuple[float, float]]

    @classmethod
    def between(cls, embeddings: Embeddings, pairs: Sequence[Pair]) -> Verification:
        """From the embeddings of samples and pairs of their places."""
        first, second = (np.array([pair[i] for pair in pairs]) for i in (0, 1))
        same = np.array([pair.same for pair in pairs])
        a, b = ((x[first] * x[second]).sum(axis=1) for x in (embeddings.before, embeddings.after))
        folds = _folds(same)
        limits_a, limits_b = (np.zeros(len(pairs)) for _ in range(2))
        for fold in np.unique(folds):
            mine = folds == fold
            limits_a[mine], limits_b[mine] = (threshold(x[~mine], same[~mine]) for x in (a, b))
        right_a, right_b, right_kept = (
            (x >= limit) == same for x, limit in ((a, limits_a), (b, limits_b), (b, limits_a))
        )
        rates = {"eer": (equal_error_rate(a, same), equal_error_rate(b, same))}
        if (~same).sum() >= ENOUGH:
            rates["tar"] = (true_acceptance(a, same, FAR), true_acceptance(b, same, FAR))
        return cls(Share.of(right_a), Share.of(right_b), Change.between(right_a, right_b), Share.of(right_kept), rates)

    def summary(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        change = self.change.estimate
        found: dict[str, Any] = {
            "pairs": self.before.count,
            "match_float": self.before.value,
            "match_float_low": self.before.low,
            "match_quantized": self.after.value,
            "match_change": change.value,
            "match_change_interval": change.interval,
            "match_gained": self.change.gained,
            "match_lost": self.change.lost,
            "match_kept_threshold": self.kept.value,
        }
        for name, (a, b) in self.rates.items():
            found |= {f"{name}_float": a, f"{name}_quantized": b, f"{name}_change": b - a}
        return found

    def lines(self) -> list[str]:
        """The same in words."""
        change = self.change.estimate
        lines = [
            f"  verification        {self.before} -> {self.after}",
            f"  {'':<19} {change.value:+.2%} ± {change.interval:.2%} paired ({self.change.gained} gained, "
            f"{self.change.lost} lost of {self.change.count:,} pairs)",
            f"  at float thresholds {self.kept}",
        ]
        names = {"eer": "equal error rate", "tar": f"TAR at FAR {FAR:.0%}"}
        return lines + [f"  {names[name]:<19} {a:.2%} -> {b:.2%} ({b - a:+.2%})" for name, (a, b) in self.rates.items()]


def threshold(scores: Array, same: Array) -> float:
    """The score from which on a pair is called the same, for the most pairs right: in the middle of its gap.

    Of equally good gaps the widest is taken, then the lowest.

    >>> threshold(np.array([0.9, 0.8, 0.3, 0.1]), np.array([True, True, False, False]))
    0.55
    """
    order = np.argsort(scores, kind="stable")
    x, hits = scores[order], same[order]
    edges = np.concatenate([[x[0] - 1], (x[1:] + x[:-1]) / 2, [x[-1] + 1]])
    right = np.concatenate([[0], np.cumsum(~hits)]) + hits.sum() - np.concatenate([[0], np.cumsum(hits)])
    gaps = np.concatenate([[0.0], np.diff(x), [0.0]])
    right = np.where(np.concatenate([[True], np.diff(x) > 0, [True]]), right, -1)  # equal scores cannot be parted
    best = np.flatnonzero(right == right.max())
    return float(edges[best[gaps[best].argmax()]])


def equal_error_rate(scores: Array, same: Array) -> float:
    """Where as large a share of different pairs is accepted as of the same ones refused: halfway between the two rates
    at the threshold where they are nearest.

    >>> equal_error_rate(np.array([0.9, 0.4, 0.6, 0.1]), np.array([True, True, False, False]))
    0.5
    """
    limits = np.append(np.unique(scores), np.inf)
    mine, others = np.sort(scores[same]), np.sort(scores[~same])
    refused = np.searchsorted(mine, limits, side="left") / len(mine)
    accepted = 1 - np.searchsorted(others, limits, side="left") / len(others)
    best = int(np.abs(refused - accepted).argmin())
    return float((refused[best] + accepted[best]) / 2)


def true_acceptance(scores: Array, same: Array, far: float) -> float:
    """The share of same pairs accepted at the lowest threshold that accepts at most `far` of the different ones.

    >>> true_acceptance(np.array([0.9, 0.4, 0.6, 0.1]), np.array([True, True, False, False]), 0.01)
    0.5
    """
    others = np.sort(scores[~same])[::-1]
    limit = others[int(far * len(others))]
    return float((scores[same] > limit).mean())


def embedding_of(outputs: Mapping[str, Array], name: str | None, samples: int) -> str:
    """The output that is an embedding: the one called `name`, or the only one with a row of numbers per sample.

    Raises DataError where there is none, or several.
    """
    shapes = ", ".join(f"{key} {list(x.shape)}" for key, x in outputs.items())
    if name is not None and name not in outputs:
        raise DataError(
            f"no output is called {name!r}", where="data.match.output", fix=f"Known: {', '.join(outputs)}", key=KEY
        )
    rows = [key for key, x in outputs.items() if _is_row(x, samples) and name in (None, key)]
    if len(rows) == 1:
        return rows[0]
    if rows:
        fix = "Name the embedding in data.match.output"
        raise DataError(f"several outputs could be the embedding: {shapes}", where="the network", fix=fix, key=KEY)
    fix = "Export the network with one embedding [samples, width] per sample, or set another data.task"
    raise DataError(f"no output is one row per sample for {samples} samples: {shapes}", where="the network", fix=fix,
                    key="data.task")  # fmt: skip


KEY = "data.match.output"


def rows_of(x: Array) -> Array:
    """[samples, width] of an output that may have further axes of one."""
    return x.reshape(x.shape[:2])


def _is_row(x: Array, samples: int) -> bool:
    return x.dtype.kind == "f" and x.ndim >= 2 and x.shape[0] == samples and x.shape[1] > 1 and x[0].size == x.shape[1]


def _unit(x: Array) -> Array:
    wide = x.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    found: Array = np.divide(wide, length, out=np.zeros_like(wide), where=length > 0)
    return found


def _folds(same: Array) -> Array:
    """The fold of each pair: both kinds are dealt out in turn."""
    folds = np.zeros(len(same), np.int64)
    count = min(FOLDS, int(same.sum()), int((~same).sum()))
    for kind in (True, False):
        places = np.flatnonzero(same == kind)
        folds[places] = np.arange(len(places)) % count
    return folds
