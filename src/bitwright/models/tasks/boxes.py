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


def read_boxes(outputs: Mapping[str, Array], images: int, first: int = 0) -> list[Detections]:
    """One `Detections` per image from the outputs of a network that ends in non-maximum suppression.

    Two forms are read: one output [images, n, 6] or, for one image, [n, 6], of x1, y1, x2, y2, score, class; or outputs
    whose names hold "box", "score" and "label" or "class": [images, n, 4], [images, n], [images, n], without the
    first axis for one image. Corners are in pixels of the network's input. Rows with a score of 0 or below are
    padding. `first` is the number of the first class (1 where 0 is the background).

    Raises DataError, naming the outputs, for any other form.
    """
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())

    def wrong(what: str) -> DataError:
        fix = "Give a network that answers boxes [images, n, 4], scores and labels, after non-maximum suppression"
        return DataError(f"{what}: {shapes}", where="the network's outputs", fix=fix)

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
        found.append(Detections.of(corners[real], values[real], kinds[real].astype(np.int64) - first))
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


@dataclass(frozen=True, eq=False)
class Boxes:
    """Mean average precision of a float and another network over the same images; adds over batches."""

    before: Matches
    after: Matches

    @classmethod
    def between(cls, truth: Sequence[Annotations], before: Sequence[Detections], after: Sequence[Detections]) -> Boxes:
        """From the true boxes and those of the two networks, one of each per image."""
        found = cls(Matches(), Matches())
        for true, a, b in zip(truth, before, after, strict=True):
            found += cls(Matches.of(a, true), Matches.of(b, true))
        return found

    def __add__(self, other: Boxes) -> Boxes:
        return Boxes(self.before + other.before, self.after + other.after)

    def summary(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        before, after = self.before.precision(), self.after.precision()
        rows = {"map": (before.map, after.map), "ap50": (before.ap50, after.ap50), "ap75": (before.ap75, after.ap75)}
        found: dict[str, Any] = {"images": before.images, "objects": sum(self.before.objects.values())}
        for name, (a, b) in rows.items():
            found |= {f"{name}_float": a, f"{name}_quantized": b, f"{name}_change": b - a}
        return found

    def lines(self) -> list[str]:
        """The same in words."""
        before, after = self.before.precision(), self.after.precision()
        rows = (
            ("mAP [.5:.95]", before.map, after.map),
            ("AP 50", before.ap50, after.ap50),
            ("AP 75", before.ap75, after.ap75),
        )
        return [f"  {name:<19} {a:.2%} -> {b:.2%} ({b - a:+.2%})" for name, a, b in rows]
