"""Mean average precision of detected boxes, as COCO defines it.

Lin et al., Microsoft COCO (arXiv 1405.0312) and the code of cocodataset/cocoapi, which settles what the paper leaves
open: boxes are matched greedily by score within an image and class, at intersection over union (IoU) .50, .55 ... .95;
the 100 best per class and image count; crowd regions are neither found nor missed; precision is made monotone and
read at 101 recalls; classes without an annotated object do not count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

from bitwright.errors import DataError
from bitwright.models.samples.preprocess import Array

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
LIMIT = 100
"""Detections of one class in one image that count: those with the highest scores."""


@dataclass(frozen=True, eq=False)
class Annotations:
    """The true boxes of one image: corners [n, 4] (x1, y1, x2, y2), classes [n] from 0, crowd [n] (to be ignored)."""

    boxes: Array
    classes: Array
    crowd: Array

    @classmethod
    def of(cls, boxes: Any, classes: Any, crowd: Any = None) -> Annotations:
        """From lists; raises DataError where lengths differ or a number is not finite."""
        corners, kinds = _boxes(boxes), np.asarray(classes, np.int64).reshape(-1)
        flags = np.zeros(len(kinds), bool) if crowd is None else np.asarray(crowd, bool).reshape(-1)
        _same_length("annotations", corners, kinds, flags)
        return cls(corners, kinds, flags)


@dataclass(frozen=True, eq=False)
class Detections:
    """The boxes a network found in one image: corners [n, 4], scores [n], classes [n] from 0; any order."""

    boxes: Array
    scores: Array
    classes: Array

    @classmethod
    def of(cls, boxes: Any, scores: Any, classes: Any) -> Detections:
        """From lists or outputs; raises DataError where lengths differ or a number is not finite."""
        corners, values = _boxes(boxes), np.asarray(scores, np.float64).reshape(-1)
        kinds = np.asarray(classes).reshape(-1).astype(np.int64)
        if not np.isfinite(values).all():
            raise DataError("scores that are NaN or infinite", where="detections", fix="Check the network's outputs")
        _same_length("detections", corners, values, kinds)
        return cls(corners, values, kinds)


@dataclass(frozen=True)
class Precision:
    """Average precision over all thresholds (`map`), at IoU .5 and .75, and of each class (over all thresholds)."""

    map: float
    ap50: float
    ap75: float
    classes: dict[int, float]
    images: int

    def summary(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        classes = {str(key): value for key, value in self.classes.items()}
        return {"map": self.map, "ap50": self.ap50, "ap75": self.ap75, "classes": classes, "images": self.images}


@dataclass(frozen=True, eq=False)
class Matches:
    """What average precision needs of the images seen: additive, 11 numbers per detection that counts.

    class -> scores [n], and for each threshold whether the detection found an object (1), none (0), or only a crowd
    (-1: it does not count) int8 [n, 10]; class -> number of annotated objects.
    """

    found: dict[int, tuple[Array, Array]] = field(default_factory=dict)
    objects: dict[int, int] = field(default_factory=dict)
    images: int = 0

    @classmethod
    def of(cls, detections: Detections, annotations: Annotations) -> Matches:
        """The record of one image."""
        found, objects = {}, {}
        kinds = np.union1d(detections.classes, annotations.classes)
        for kind in kinds.tolist():
            mine, true = detections.classes == kind, annotations.classes == kind
            crowd = annotations.crowd[true]
            if count := int((~crowd).sum()):
                objects[kind] = count
            order = np.argsort(-detections.scores[mine], kind="stable")[:LIMIT]
            if len(order):
                overlap = iou(detections.boxes[mine][order], annotations.boxes[true], crowd)
                found[kind] = (detections.scores[mine][order], _match(overlap, crowd))
        return cls(found, objects, 1)

    def __add__(self, other: Matches) -> Matches:
        found, objects = dict(self.found), dict(self.objects)
        for kind, (scores, hits) in other.found.items():
            if kind in found:
                scores, hits = np.concatenate([found[kind][0], scores]), np.concatenate([found[kind][1], hits])
            found[kind] = (scores, hits)
        for kind, count in other.objects.items():
            objects[kind] = objects.get(kind, 0) + count
        return Matches(found, objects, self.images + other.images)

    def precision(self) -> Precision:
        """Average precision; raises DataError where no object is annotated."""
        if not self.objects:
            raise DataError("no annotated objects", where="annotations", fix="Give images with some")
        table = {}
        for kind, count in sorted(self.objects.items()):
            scores, hits = self.found.get(kind, (np.zeros(0), np.zeros((0, len(THRESHOLDS)), np.int8)))
            hits = hits[np.argsort(-scores, kind="stable")]
            table[kind] = np.array([_area(column[column >= 0], count) for column in hits.T])
        every = np.stack(list(table.values()))
        classes = {kind: float(row.mean()) for kind, row in table.items()}
        return Precision(
            float(every.mean()), float(every[:, 0].mean()), float(every[:, 5].mean()), classes, self.images
        )


def mean_average_precision(detections: Iterable[Detections], annotations: Iterable[Annotations]) -> Precision:
    """COCO's mAP of images in the same order; raises DataError for different numbers of images, or no object at all."""
    seen = Matches()
    for found, true in zip_longest(detections, annotations):
        if found is None or true is None:
            raise DataError(
                "detections and annotations of different numbers of images", fix="Give one of each per image"
            )
        seen += Matches.of(found, true)
    return seen.precision()


def iou(boxes: Array, others: Array, crowd: Array) -> Array:
    """Intersection over union of corners [n, 4] with [m, 4]: [n, m]; for a crowd, over the first's area."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    inter: Array = np.prod(np.maximum(high - low, 0), axis=2)
    area, other = (np.prod(np.maximum(x[:, 2:] - x[:, :2], 0), axis=1) for x in (boxes, others))
    union = np.where(crowd[None], area[:, None], area[:, None] + other[None] - inter)
    share: Array = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return share


def _match(overlap: Array, crowd: Array) -> Array:
    """Greedy assignment by falling score: overlap [n, m] -> int8 [n, thresholds], 1 object, 0 nothing, -1 crowd.

    A detection takes the free object it overlaps most; only where there is none, a crowd, which stays free.
    """
    hits = np.zeros((len(overlap), len(THRESHOLDS)), np.int8)
    for column, threshold in enumerate(THRESHOLDS):
        free = ~crowd
        for row, shares in enumerate(overlap):
            # As pycocotools: an overlap equal to the threshold counts; of equal overlaps, the later object is taken.
            fit = np.flatnonzero(free & (shares >= min(threshold, 1 - 1e-10)))
            if len(fit):
                best = fit[shares[fit] == shares[fit].max()][-1]
                free[best] = False
                hits[row, column] = 1
            elif (crowd & (shares >= min(threshold, 1 - 1e-10))).any():
                hits[row, column] = -1
    return hits


def _area(hits: Array, count: int) -> float:
    """Mean over RECALLS of the best precision at that recall or a higher one; `hits` [n] 0 or 1 by falling score."""
    true = np.cumsum(hits, dtype=np.float64)
    recall, precision = true / count, true / (np.arange(len(hits)) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.append(best, 0.0)[np.searchsorted(recall, RECALLS, side="left")].mean())


def _boxes(values: Any) -> Array:
    """Corners [n, 4] in double precision."""
    found = np.asarray(values, np.float64)
    if found.size % 4 or (found.size and (found.ndim != 2 or found.shape[1] != 4)):
        raise DataError(f"boxes of shape {list(found.shape)}, not [n, 4]", fix="Give corners x1, y1, x2, y2")
    found = found.reshape(-1, 4)
    if not np.isfinite(found).all():
        raise DataError("boxes that are NaN or infinite", fix="Check the network's outputs")
    return found


def _same_length(what: str, *columns: Array) -> None:
    if len({len(column) for column in columns}) > 1:
        sizes = ", ".join(str(len(column)) for column in columns)
        raise DataError(f"fields of different lengths ({sizes})", where=what, fix="Give one of each per box")
