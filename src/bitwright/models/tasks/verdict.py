"""How far a quantized network is from its float self on a task: measures of both over the same batches, which add up.

    total = None
    for batch in samples:
        part = compare(samples.task, float.run(batch.feeds), int.run(batch.feeds), batch.labels, ...)
        total = part if total is None else total + part

Every measure is paired (same samples, both networks), holds sums only, and has `summary()` and `lines()`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bitwright.core.measure import Error, kl
from bitwright.errors import DataError
from bitwright.models.samples.pairs import Pair
from bitwright.models.samples.preprocess import Array
from bitwright.models.tasks.boxes import Boxes
from bitwright.models.tasks.estimate import Change, Mean, Share
from bitwright.models.tasks.heads import Head
from bitwright.models.tasks.match import Embeddings, Verification, embedding_of, rows_of
from bitwright.models.tasks.words import Words, hypotheses
from bitwright.recipe import Detection

FLOOR = 1e-7
"""Smallest probability taken for a class where outputs are probabilities, so that a 0 gives no infinite KL."""
TOLERANCE = 1e-3
"""How far rows of probabilities may be from summing to 1."""


@dataclass(frozen=True)
class Signals:
    """Every output as numbers: `Error` sums of each, float against quantized.

    `unlike` are outputs that had other sizes in the two networks, because values decide them: they have no SQNR.
    """

    errors: Mapping[str, Error] = field(default_factory=dict)
    unlike: frozenset[str] = frozenset()

    @classmethod
    def between(cls, before: Mapping[str, Array], after: Mapping[str, Array]) -> Signals:
        """From the outputs of the two networks; raises DataError for other names or shapes, NaN and infinity."""
        names = _names(before, after)
        shapes = {name: (np.shape(before[name]), np.shape(after[name])) for name in names}
        unlike = frozenset(name for name, (a, b) in shapes.items() if a != b and len(a) == len(b))
        alike = [name for name in names if name not in unlike] or names[:1]
        return cls({name: Error.between(*_pair(before, after, name)) for name in alike}, unlike)

    def __add__(self, other: Signals) -> Signals:
        unlike = self.unlike | other.unlike
        names = [name for name in {**self.errors, **other.errors} if name not in unlike]
        sums = {name: self.errors.get(name, Error()) + other.errors.get(name, Error()) for name in names}
        return Signals(sums, unlike)

    def summary(self) -> dict[str, Any]:
        """Plain numbers for JSON; an SQNR without any error is None. `silent`: the float network answers 0 only."""
        silent = all(error.signal == 0 for error in self.errors.values())
        return {"sqnr_db": {name: _finite(error.sqnr) for name, error in self.errors.items()}, "silent": silent}

    def lines(self) -> list[str]:
        """The same in words."""
        known = [f"  SQNR of {name:<11} {error.sqnr:.2f} dB" for name, error in self.errors.items()]
        return known + [f"  SQNR of {name:<11} none: its size depends on the values" for name in sorted(self.unlike)]


@dataclass(frozen=True)
class Scores:
    """Class scores as distributions: KL(float || quantized) in nats per row, and how often the best is the same."""

    kl: Mean
    agree: Share

    @classmethod
    def between(cls, before: Array, after: Array) -> Scores:
        """From scores [..., classes]: logits, log probabilities or probabilities, told apart by the float ones."""
        a, b = (x.reshape(-1, x.shape[-1]) for x in (before, after))
        same = Share.of(a.argmax(axis=1) == b.argmax(axis=1))
        if probabilities(a):
            a, b = (np.log(np.maximum(x, FLOOR)) for x in (a, b))
        # Rounding of equal distributions may give -1e-8.
        return cls(Mean.of(np.maximum(kl(a.astype(np.float64), b.astype(np.float64)), 0)), same)

    def __add__(self, other: Scores) -> Scores:
        return Scores(self.kl + other.kl, self.agree + other.agree)

    def summary(self) -> dict[str, float | int]:
        """Plain numbers for JSON."""
        kl = self.kl.estimate
        return {
            "rows": self.kl.count,
            "kl": kl.value,
            "kl_interval": kl.interval,
            "top1_agreement": self.agree.value,
            "top1_agreement_low": self.agree.low,
            "top1_agreement_high": self.agree.high,
        }

    def lines(self) -> list[str]:
        """The same in words."""
        kl = self.kl.estimate
        return [
            f"  KL(float || int)    {kl.value:.5f} ± {kl.interval:.5f} nats ({self.kl.count:,} rows)",
            f"  top-1 agreement     {self.agree}",
        ]


@dataclass(frozen=True)
class Accuracy:
    """How often the label is among the `top` best scores: float, quantized, and the paired change."""

    top: int
    before: Share
    after: Share
    change: Change

    @classmethod
    def between(cls, before: Array, after: Array, labels: Sequence[int], top: int) -> Accuracy:
        """From scores [samples, classes] and class numbers; of equal scores the lower class number comes first."""
        a, b = (_rank(x, np.asarray(labels)) < top for x in (before, after))
        return cls(top, Share.of(a), Share.of(b), Change.between(a, b))

    def __add__(self, other: Accuracy) -> Accuracy:
        return Accuracy(self.top, self.before + other.before, self.after + other.after, self.change + other.change)

    def summary(self) -> dict[str, float | int]:
        """Plain numbers for JSON."""
        name, change = f"top{self.top}", self.change.estimate
        found: dict[str, float | int] = {"labelled": self.before.count}
        for word, share in (("float", self.before), ("quantized", self.after)):
            key = f"{name}_{word}"
            found |= {key: share.value, f"{key}_low": share.low, f"{key}_high": share.high}
        return found | {
            f"{name}_change": change.value,
            f"{name}_change_interval": change.interval,
            f"{name}_gained": self.change.gained,
            f"{name}_lost": self.change.lost,
        }

    def lines(self) -> list[str]:
        """The same in words."""
        change = self.change.estimate
        name = f"top-{self.top} accuracy"
        return [
            f"  {name:<19} {self.before} -> {self.after}",
            f"  {'':<19} {change.value:+.2%} ± {change.interval:.2%} paired "
            f"({self.change.gained} gained, {self.change.lost} lost of {self.change.count:,})",
        ]


@dataclass(frozen=True)
class Verdict:
    """All that was measured on a task; what data or network do not allow is None. Adds over batches."""

    task: str
    samples: int
    signals: Signals
    scores: Scores | None = None
    top1: Accuracy | None = None
    top5: Accuracy | None = None
    words: Words | None = None
    boxes: Boxes | None = None
    embeddings: Embeddings | None = None
    verification: Verification | None = None
    """Of pairs over all batches: see `verified`."""

    def verified(self, pairs: Sequence[Pair]) -> Verdict:
        """With what the embeddings of all samples, in their order, say about `pairs` of them."""
        assert self.embeddings is not None
        return replace(self, verification=Verification.between(self.embeddings, pairs))

    def __add__(self, other: Verdict) -> Verdict:
        parts = ("scores", "top1", "top5", "words", "boxes", "embeddings")
        return Verdict(
            self.task,
            self.samples + other.samples,
            self.signals + other.signals,
            **{part: _add(getattr(self, part), getattr(other, part)) for part in parts},
        )

    def _parts(self) -> list[Any]:
        parts = (
            self.top1, self.top5, self.words, self.boxes, self.verification, self.embeddings, self.scores, self.signals,
        )  # fmt: skip
        return [part for part in parts if part is not None]

    def summary(self) -> dict[str, Any]:
        """Plain numbers for JSON, in one table."""
        found: dict[str, Any] = {"task": self.task, "samples": self.samples}
        for part in self._parts():
            found |= part.summary()
        return found

    def lines(self) -> list[str]:
        """The same in words."""
        return [line for part in self._parts() for line in part.lines()]


def compare(
    task: str,
    before: Mapping[str, Array],
    after: Mapping[str, Array],
    labels: Sequence[Any] | None,
    *,
    count: int | None = None,
    classes: Sequence[str] = (),
    blank: int = 0,
    output: str | None = None,
    head: Head | None = None,
) -> Verdict:
    """One batch: the outputs {name: array} of the float network and of the quantized one, and the labels.

    `task` is that of `Samples`; "classify" and "words" look at `output` (default: the first one), "match" at it (by
    default the only one that is an embedding), "detect" at the boxes that `head` reads. `classes` are the words or
    symbols of "words", with CTC's blank at `blank`. `count` is the number of samples where there are no labels
    (default: the output's first axis).

    Raises DataError where outputs contradict the labels, the classes or each other, and for NaN or infinity.
    """
    signals = Signals.between(before, after)
    if task == "match":
        size = len(labels) if labels is not None else count if count is not None else len(next(iter(before.values())))
        name = embedding_of(before, output, size)
        pair = (rows_of(x) for x in _pair(before, after, name))
        return Verdict(task, size, signals, embeddings=Embeddings.of(*pair))
    name = output if output is not None else next(iter(before))
    if name not in before:
        raise DataError("no such output", where=repr(name), fix=f"Known: {', '.join(before)}")
    a, b = _pair(before, after, name)
    size = len(labels) if labels is not None else count if count is not None else len(a)
    if task == "classify":
        a, b = _scores(a, name, size), _scores(b, name, size)
        return Verdict(task, size, signals, Scores.between(a, b), *_accuracy(a, b, labels, classes, name))
    if task == "words":
        if labels is None:
            return Verdict(task, size, signals, Scores.between(a, b))
        words = Words.between(labels, *(hypotheses(x, classes, blank, size) for x in (a, b)))
        return Verdict(task, size, signals, Scores.between(a, b), words=words)
    if task == "detect":
        head = head or Head(Detection())
        head.require(before, size)
        boxes = Boxes.between(labels, *(head.read(x, size) for x in (before, after)))
        return Verdict(task, size, signals, boxes=boxes)
    return Verdict(task, size, signals)


def probabilities(scores: Array) -> bool:
    """Whether rows [rows, classes] are probabilities already: none negative, each summing to 1."""
    return bool((scores >= 0).all() and (np.abs(scores.sum(axis=1, dtype=np.float64) - 1) < TOLERANCE).all())


def _accuracy(
    a: Array, b: Array, labels: Sequence[Any] | None, classes: Sequence[str], name: str
) -> tuple[Accuracy | None, Accuracy | None]:
    """Top 1, and top 5 of more than five classes; nothing without labels."""
    width = a.shape[1]
    require_classes(labels, classes, width, name)
    if labels is None:
        return None, None
    return Accuracy.between(a, b, labels, 1), Accuracy.between(a, b, labels, 5) if width > 5 else None


def require_classes(
    labels: Sequence[Any] | None, classes: Sequence[str], width: int, output: str, where: str = "labels"
) -> None:
    """Raise DataError where `labels` or named `classes` are not those of an `output` that is `width` wide."""
    if classes and len(classes) != width:
        what = f"{len(classes)} classes in the data, {width} in output {output!r}"
        raise DataError(what, where="data.classes", fix="Name the network's classes in their order", key="data.classes")
    bad = next((label for label in (() if labels is None else labels) if not 0 <= label < width), None)
    if bad is not None:
        what = f"label {bad} is outside the {width} classes of output {output!r}"
        raise DataError(what, where=where, fix="Correct the labels, or name data.classes")


def _rank(scores: Array, labels: Array) -> Array:
    """How many classes stand before the label's, for each row."""
    mine = np.take_along_axis(scores, labels[:, None], axis=1)
    earlier = np.arange(scores.shape[1])[None] < labels[:, None]
    found: Array = ((scores > mine) | ((scores == mine) & earlier)).sum(axis=1)
    return found


def _scores(x: Array, name: str, size: int) -> Array:
    """[samples, classes], from that or with further axes of one."""
    if x.ndim < 2 or x.shape[0] != size or math.prod(x.shape[2:]) != 1:
        what = f"output {name!r} of shape {list(x.shape)} is not one row of class scores for each of {size} samples"
        raise DataError(what, where="data.task", fix='Name another output, or set data.task = "none"', key="data.task")
    return x.reshape(x.shape[:2])


def _names(before: Mapping[str, Array], after: Mapping[str, Array]) -> list[str]:
    if list(before) != list(after):
        what = f"outputs {', '.join(before)} and {', '.join(after)}"
        raise DataError(what, where="the two networks", fix="Compare a network with its own quantized form")
    return list(before)


def _pair(before: Mapping[str, Array], after: Mapping[str, Array], name: str) -> tuple[Array, Array]:
    """One output of both as float arrays; raises DataError where shapes differ or a value is not finite."""
    a, b = (np.asarray(x[name]) for x in (before, after))
    if a.shape != b.shape:
        what = f"shapes {list(a.shape)} and {list(b.shape)}"
        raise DataError(what, where=f"output {name!r}", fix="Compare a network with its own quantized form")
    a, b = (x if x.dtype.kind == "f" else x.astype(np.float32) for x in (a, b))
    for x, which in ((a, "float"), (b, "quantized")):
        if not np.isfinite(x).all():
            what = f"the {which} network gives NaN or infinity"
            raise DataError(what, where=f"output {name!r}", fix="Look at its weights and its input")
    return a, b


def _add(a: Any, b: Any) -> Any:
    """a + b, where one may be missing."""
    return a + b if a is not None and b is not None else a if b is None else b


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
