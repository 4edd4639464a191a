"""A detection network's outputs as `Detections`, and mAP of two networks over the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitwright.errors import DataError
from bitwright.models.samples.preprocess import Array
from bitwright.models.tasks.detection import Annotations, Detections, Matches

ROLES = {"boxes": ("box", "bbox"), "scores": ("score", "conf", "prob"), "classes": ("label", "class", "cls")}


def read_boxes(outputs: Mapping[str, Array], images: int) -> list[Detections]:
    """One `Detections` per image from the outputs of a network that ends in non-maximum suppression.

    Two forms are read: one output [images, n, 6] or, for one image, [n, 6], of x1, y1, x2, y2, score, class; or outputs
    whose names hold "box", "score" and "label" or "class": [images, n, 4], [images, n], [images, n], without the
    first axis for one image. Corners are in pixels of the network's input. Rows with a score of 0 or below are
    padding.

    Raises DataError, naming the outputs, for any other form.
    """
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())

    def wrong(what: str) -> DataError:
        fix = "Say in [data.detection] how a raw head is read; final boxes [images, n, 4] come with scores and labels"
        return DataError(f"{what}: {shapes}", where="the network's outputs", fix=fix, key="data.detection")

    roles = _roles(outputs)
    if roles is not None:
        parts = [np.asarray(outputs[roles[role]]) for role in ROLES]
    else:
        table = next((np.asarray(x) for x in outputs.values() if x.ndim >= 2 and x.shape[-1] == 6), None)
        if table is None:
            raise wrong("no boxes found in outputs")
        parts = [table[..., :4], table[..., 4], table[..., 5]]
    if parts[0].ndim == 2 and images == 1:
        parts = [part[None] for part in parts]
    box, score, kind = parts
    if box.shape != (images, box.shape[1] if box.ndim > 1 else 0, 4) or {score.shape, kind.shape} != {box.shape[:2]}:
        raise wrong(f"outputs do not fit {images} images")
    found = []
    for corners, values, kinds in zip(box, score, kind, strict=True):
        real = ~(values <= 0)  # NaN is not padding: Detections.of raises
        found.append(Detections.of(corners[real], values[real], kinds[real].astype(np.int64)))
    return found


def _roles(outputs: Mapping[str, Array]) -> dict[str, str] | None:
    """Role -> the name of the output that has it, where each role has exactly one."""
    found = {}
    for role, words in ROLES.items():
        names = [name for name in outputs if any(word in name.lower() for word in words)]
        if len(names) != 1:
            return None
        found[role] = names[0]
    return found if len(set(found.values())) == len(ROLES) else None


SURE = 0.25
"""Score from which on a box is one that the network stands for: those that two networks agree on, or not."""


@dataclass(frozen=True)
class Agreement:
    """Sure boxes of two networks over the same images, and how many are the `same`: one class, IoU at least .5."""

    images: int = 0
    before: int = 0
    after: int = 0
    same: int = 0

    @classmethod
    def of(cls, before: Detections, after: Detections) -> Agreement:
        """Of one image: the float network's boxes, and the other's that are matched with them as mAP matches."""
        a, b = (sure(x) for x in (before, after))
        matches = Matches.of(b, Annotations.of(a.boxes, a.classes))
        same = sum(int((hits[:, 0] > 0).sum()) for _, hits in matches.found.values())
        return cls(1, len(a.scores), len(b.scores), same)

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.images + other.images, self.before + other.before, self.after + other.after, self.same + other.same
        )

    @property
    def value(self) -> float:
        """The share of all boxes of both that the other has, too (Dice's coefficient); 1 where there are none."""
        return 2 * self.same / (self.before + self.after) if self.before + self.after else 1.0


def sure(found: Detections) -> Detections:
    """Those with a score of SURE or more."""
    kept = found.scores >= SURE
    return Detections(found.boxes[kept], found.scores[kept], found.classes[kept])


def told(boxes: Array, classes: Array, names: Sequence[str], scores: Array | None = None) -> list[list[Any]]:
    """For JSON: x1, y1, x2, y2 to a tenth of a pixel, the name of the class, and the score where there are scores."""
    called = [names[kind] if kind < len(names) else str(kind) for kind in classes.tolist()]
    rows = [[*box, name] for box, name in zip(np.round(boxes, 1).tolist(), called, strict=True)]
    return (
        rows if scores is None else [[*row, round(score, 3)] for row, score in zip(rows, scores.tolist(), strict=True)]
    )


@dataclass(frozen=True, eq=False)
class Boxes:
    """Mean average precision of a float and another network over the same images, where the true boxes are known, and
    how far they agree; adds over batches."""

    before: Matches
    after: Matches
    agree: Agreement

    @classmethod
    def between(
        cls, truth: Sequence[Annotations] | None, before: Sequence[Detections], after: Sequence[Detections]
    ) -> Boxes:
        """From the true boxes and those of the two networks, one of each per image."""
        found = cls(Matches(), Matches(), Agreement())
        for place, (a, b) in enumerate(zip(before, after, strict=True)):
            first, second = (Matches() if truth is None else Matches.of(x, truth[place]) for x in (a, b))
            found += cls(first, second, Agreement.of(a, b))
        return found

    def __add__(self, other: Boxes) -> Boxes:
        return Boxes(self.before + other.before, self.after + other.after, self.agree + other.agree)

    def summary(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        agree = {
            "images": self.agree.images,
            "boxes_float": self.agree.before,
            "boxes_quantized": self.agree.after,
            "boxes_same": self.agree.same,
            "boxes_agreement": self.agree.value,
        }
        return agree | (self._precision() if self.before.images else {})

    def _precision(self) -> dict[str, Any]:
        before, after = self.before.precision(), self.after.precision()
        rows = {"map": (before.map, after.map), "ap50": (before.ap50, after.ap50), "ap75": (before.ap75, after.ap75)}
        found: dict[str, Any] = {"objects": sum(self.before.objects.values())}
        for name, (a, b) in rows.items():
            found |= {f"{name}_float": a, f"{name}_quantized": b, f"{name}_change": b - a}
        return found

    def lines(self) -> list[str]:
        """The same in words."""
        told = f"{self.agree.same:,} the same, of {self.agree.before:,} and {self.agree.after:,} with a score of {SURE}"
        agreement = f"  {'boxes agree':<19} {self.agree.value:.2%} ({told})"
        if not self.before.images:
            return [agreement]
        before, after = self.before.precision(), self.after.precision()
        rows = (
            ("mAP [.5:.95]", before.map, after.map),
            ("AP 50", before.ap50, after.ap50),
            ("AP 75", before.ap75, after.ap75),
        )
        return [*(f"  {name:<19} {a:.2%} -> {b:.2%} ({b - a:+.2%})" for name, a, b in rows), agreement]
