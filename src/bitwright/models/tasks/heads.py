"""Boxes from a detector's outputs as the recipe's `[data.detection]` says: final ones, or a raw head's.

A raw head has a box and a score per class for every place it looks at; what a runtime does with it outside of the
network is done here: scores are made of logits, boxes become corners, and of boxes of one class that overlap, the best
is kept (non-maximum suppression).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from bitwright.errors import DataError
from bitwright.models.samples.preprocess import Array
from bitwright.models.tasks.boxes import ROLES, read_boxes
from bitwright.models.tasks.detection import LIMIT, Detections
from bitwright.recipe import Detection

CANDIDATES = 1000
"""Boxes of one class in one image that suppression looks at: those with the highest scores."""
SHARES = 2.0
"""Largest coordinate of boxes that are shares of the input: some lie partly outside of it."""


@dataclass(frozen=True)
class Head:
    """How one detector's outputs are read: the recipe's table, the number of classes where it is known, and (height,
    width) of the network's input, which boxes that are shares of it need."""

    table: Detection
    classes: int | None = None
    sides: tuple[int, int] | None = None

    def read(self, outputs: Mapping[str, Array], images: int) -> list[Detections]:
        """One `Detections` per image, of classes from 0, best first within a class.

        Raises DataError, naming the outputs, where they are not as the recipe says.
        """
        if self.table.boxes is None:
            return read_boxes(outputs, images)
        boxes, scores = self._split(outputs, images)
        corners, chances = self._corners(boxes), self._chances(scores)
        return [self._suppressed(*pair) for pair in zip(corners, chances, strict=True)]

    def require(self, outputs: Mapping[str, Array], images: int) -> None:
        """Raise DataError where the float network's numbers are not what the recipe says of them."""
        if self.table.boxes is None:
            return
        boxes, scores = self._split(outputs, images)
        low, high = float(scores.min(initial=0)), float(scores.max(initial=0))
        if self.table.scores == "probability" and (low < -1e-3 or high > 1 + 1e-3):
            raise self._wrong(f"scores from {low:.3g} to {high:.3g} are not probabilities", 'Set scores = "logit"')
        largest = float(np.abs(boxes).max(initial=0))
        if self.table.relative and largest > SHARES:
            raise self._wrong(f"boxes up to {largest:.4g} are not shares of the input", "Leave out relative")
        if not self.table.relative and largest <= SHARES:
            raise self._wrong(f"boxes up to {largest:.3g} are not pixels", "Set relative = true")
        if self.table.relative and self.sides is None:
            raise self._wrong("shares of an input that is no image", "Give images")

    def _split(self, outputs: Mapping[str, Array], images: int) -> tuple[Array, Array]:
        """Boxes [images, n, 4], and all that follows them [images, n, objectness + classes], as they were given."""
        arrays = {name: x[None] if x.ndim == 2 and images == 1 else x for name, x in outputs.items()}
        tables = {name: x for name, x in arrays.items() if x.ndim == 3 and len(x) == images and x.dtype.kind == "f"}
        found = list(self._whole(tables)) or list(self._parted(tables))
        if len(found) == 1:
            return found[0]
        shapes = ", ".join(f"{name} {list(x.shape)}" for name, x in outputs.items())
        if found:
            raise self._wrong(f"boxes can be read in several ways from {shapes}", "Set layout")
        if self.classes is None and self.table.layout is None:
            raise self._wrong(f"how many classes there are is not known, in {shapes}", "Name them in data.classes")
        width = "" if self.classes is None else f" with {self._width} values each (4 + {self._width - 4})"
        raise self._wrong(f"no boxes{width} for {images} images in {shapes}", "Name all classes in data.classes")

    def _wrong(self, what: str, fix: str) -> DataError:
        fix = f"{fix}, or correct [data.detection]"
        return DataError(what, where="the network's outputs", fix=fix, key="data.detection")

    @property
    def _columns(self) -> int:
        """Scores of a box, without objectness."""
        return (self.classes or 0) + (self.table.background != "none")

    @property
    def _width(self) -> int:
        return 4 + self.table.objectness + self._columns

    def _laid(self, tables: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """Every output with one box per row, [images, n, values], in each layout that the recipe allows."""
        for name, x in tables.items():
            if self.table.layout != "columns":
                yield name, x
            if self.table.layout != "rows":
                yield name, x.swapaxes(1, 2)

    def _whole(self, tables: Mapping[str, Array]) -> Iterator[tuple[Array, Array]]:
        """Outputs that hold boxes and scores side by side."""
        for _, x in self._laid(tables):
            wide = x.shape[2] > 4 + self.table.objectness and self.table.layout is not None
            if x.shape[2] == self._width if self.classes is not None else wide:
                yield x[..., :4], x[..., 4:]

    def _parted(self, tables: Mapping[str, Array]) -> Iterator[tuple[Array, Array]]:
        """Pairs of outputs, one with boxes and one with scores; as many classes as coordinates are told by names."""
        if self.classes is None or self.table.objectness:
            return
        laid = list(self._laid(tables))
        named = {name for name, _ in laid if any(word in name.lower() for word in ROLES["boxes"])}
        for one, boxes in laid:
            for other, scores in laid:
                apart = one != other and (self._columns != 4 or (one in named) > (other in named))
                if (
                    apart
                    and boxes.shape[2] == 4
                    and scores.shape[2] == self._columns
                    and boxes.shape[1] == scores.shape[1]
                ):
                    yield boxes, scores

    def _corners(self, boxes: Array) -> Array:
        """x1, y1, x2, y2 in pixels of the network's input, [images, n, 4]."""
        a, b = boxes[..., :2].astype(np.float64), boxes[..., 2:].astype(np.float64)
        if self.table.boxes == "cxcywh":
            a, b = a - b / 2, a + b / 2
        elif self.table.boxes == "xywh":
            b = a + b
        corners = np.concatenate([a, b], axis=2)
        if self.table.relative and self.sides is not None:
            height, width = self.sides
            corners *= [width, height, width, height]
        return corners

    def _chances(self, scores: Array) -> Array:
        """A probability for each object's class, [images, n, classes]."""
        x = scores.astype(np.float64)
        objectness, x = (x[..., :1], x[..., 1:]) if self.table.objectness else (None, x)
        if self.table.scores == "softmax":
            x = np.exp(x - x.max(axis=2, keepdims=True))
            x /= x.sum(axis=2, keepdims=True)
        if self.table.scores == "logit":
            x = _sigmoid(x)
        if objectness is not None:
            x = x * (objectness if self.table.scores == "probability" else _sigmoid(objectness))
        if self.table.background == "none":
            return x
        return x[..., 1:] if self.table.background == "first" else x[..., :-1]

    def _suppressed(self, corners: Array, chances: Array) -> Detections:
        """What is left of one image's boxes [n, 4] with their probabilities [n, classes]."""
        boxes, scores, classes = [], [], []
        for kind, chance in enumerate(chances.T):
            likely = np.flatnonzero((chance >= self.table.threshold) & (chance > 0))
            order = likely[np.argsort(-chance[likely], kind="stable")][:CANDIDATES]
            kept = order[suppress(corners[order], self.table.nms)]
            boxes.append(corners[kept])
            scores.append(chance[kept])
            classes.append(np.full(len(kept), kind))
        return Detections.of(np.concatenate(boxes), np.concatenate(scores), np.concatenate(classes))


def suppress(boxes: Array, most: float) -> Array:
    """Places of the boxes [n, 4], best first, that overlap no better one that is kept by an IoU above `most`; the first
    LIMIT of them.

    (Greedy, as torchvision's `nms` and ONNX's NonMaxSuppression are.)
    """
    x1, y1, x2, y2 = boxes.T
    area = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
    left = np.arange(len(boxes))
    kept: list[int] = []
    while len(left) and len(kept) < LIMIT:
        a, left = int(left[0]), left[1:]
        kept.append(a)
        wide = np.maximum(np.minimum(x2[a], x2[left]) - np.maximum(x1[a], x1[left]), 0)
        tall = np.maximum(np.minimum(y2[a], y2[left]) - np.maximum(y1[a], y1[left]), 0)
        inter = wide * tall
        left = left[inter <= most * (area[a] + area[left] - inter)]
    return np.array(kept, np.int64)


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))  # type: ignore[no-any-return]
