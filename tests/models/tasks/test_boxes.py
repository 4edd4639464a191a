"""Boxes from a network's outputs."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.models.tasks.boxes import Boxes, read_boxes
from bitwright.models.tasks.detection import Annotations
from tests.models.samples.sources import fails

CORNERS = np.array([[[0, 0, 10, 10], [5, 5, 9, 9]], [[1, 1, 2, 2], [0, 0, 0, 0]]], np.float32)
SCORES = np.array([[0.9, 0.2], [0.8, 0]], np.float32)
LABELS = np.array([[1, 2], [2, 0]])


def test_forms() -> None:
    table = np.concatenate([CORNERS, SCORES[..., None], LABELS[..., None]], axis=2)
    outputs = {"labels": LABELS, "boxes": CORNERS, "scores": SCORES}
    for form in (outputs, {"out": table}):
        one, two = read_boxes(form, 2)
        assert one.boxes.tolist() == CORNERS[0].tolist() and one.classes.tolist() == [1, 2]
        assert len(two.boxes) == 1, "rows without a score are padding"
    alone = read_boxes({name: array[0] for name, array in outputs.items()}, 1)
    assert alone[0].scores.tolist() == SCORES[0].tolist()
    assert len(read_boxes({"out": table[0]}, 1)[0].boxes) == 2


def test_other_outputs() -> None:
    fails(lambda: read_boxes({"logits": SCORES}, 2), "logits [2, 2]")
    fails(lambda: read_boxes({"boxes": CORNERS, "scores": SCORES, "labels": LABELS[:, :1]}, 2), "labels [2, 1]")
    fails(lambda: read_boxes({"boxes": CORNERS, "scores": SCORES, "labels": LABELS}, 3), "3 images")
    bad = SCORES.copy()
    bad[0, 0] = np.nan
    fails(lambda: read_boxes({"boxes": CORNERS, "scores": bad, "labels": LABELS}, 2), "NaN")


def test_pairs_add_up() -> None:
    truth = [Annotations.of(CORNERS[0], LABELS[0]), Annotations.of(CORNERS[1, :1], [2])]
    before = read_boxes({"boxes": CORNERS, "scores": SCORES, "labels": LABELS}, 2)
    after = read_boxes({"boxes": CORNERS + np.float32([0, 0, 0, 2]), "scores": SCORES, "labels": LABELS}, 2)
    parts = [Boxes.between(truth[i : i + 1], before[i : i + 1], after[i : i + 1]) for i in range(2)]
    whole, found = Boxes.between(truth, before, after), (parts[0] + parts[1]).summary()
    assert found == whole.summary()
    assert (found["map_float"], found["images"], found["objects"]) == (1, 2, 3)
    assert found["map_quantized"] < 1 and found["map_change"] == pytest.approx(found["map_quantized"] - 1)
    assert (found["boxes_float"], found["boxes_quantized"], found["boxes_same"]) == (2, 2, 1)
    assert len(whole.lines()) == 4


def test_agreement_needs_no_truth() -> None:
    outputs = {"boxes": CORNERS, "scores": SCORES, "labels": LABELS}
    before = read_boxes(outputs, 2)
    other = read_boxes(outputs | {"labels": LABELS[:, ::-1]}, 2)
    same, apart = Boxes.between(None, before, before), Boxes.between(None, before, other)
    assert (same.summary()["boxes_agreement"], apart.summary()["boxes_agreement"]) == (1, 0)
    assert "map_float" not in same.summary() and len((same + apart).lines()) == 1
    assert (same + apart).summary()["boxes_agreement"] == 0.5
    assert Boxes.between(None, before[:0], before[:0]).summary()["boxes_agreement"] == 1
