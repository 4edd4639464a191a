"""COCO folders: images and boxes in the network's pixels, and annotations that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.models.samples.open import open_samples
from tests.models.samples.sources import IMAGE, fails, save_image, table

pytest.importorskip("PIL")


def annotations(**changes: Any) -> dict[str, Any]:
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 12, "height": 8},
            {"id": 3, "file_name": "b.png", "width": 6, "height": 4},
        ],
        "categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 5, "bbox": [2, 4, 6, 2], "iscrowd": 0, "area": 12},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 12, 8], "iscrowd": 1},
        ],
    } | changes


def coco(root: Path, table: Any = None, where: str = "instances.json") -> Path:
    save_image(root / "images" / "a.png", 8, 12)
    save_image(root / "images" / "b.png", 4, 6, seed=1)
    path = root / where
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(table or annotations()), "utf-8")
    return path


@pytest.mark.parametrize("where", ["instances.json", "annotations/instances.json"])
def test_boxes_follow_the_pixels(tmp_path: Path, where: str) -> None:
    path = coco(tmp_path, where=where)
    for source in (tmp_path, path):
        samples = open_samples(source, IMAGE, table(order="given", image={"fit": "resize"}))
        assert (samples.task, samples.kind, samples.classes) == ("detect", "coco", ("cat", "dog"))
        (batch,) = samples
        assert batch.feeds["image"].shape == (2, 3, 4, 6) and batch.names == ("a.png", "b.png")
        one, two = batch.labels or ()
        assert one.boxes.tolist() == [[1, 2, 4, 3], [0, 0, 6, 4]]
        assert one.classes.tolist() == [1, 0] and one.crowd.tolist() == [False, True]
        assert two.boxes.shape == (0, 4)
    named = open_samples(path, IMAGE, table(order="given", classes=("dog", "?", "cat"), image={"fit": "resize"}))
    assert next(iter(named)).labels[0].classes.tolist() == [0, 2]  # type: ignore[index]


def test_boxes_are_cut_with_the_image(tmp_path: Path) -> None:
    boxes = [[0, 0, 2, 2], [1, 1, 8, 6], [5, 5, 2, 1]]
    rows = [{"id": i, "image_id": 7, "category_id": 5, "bbox": box} for i, box in enumerate(boxes)]
    path = coco(tmp_path, annotations(annotations=rows))
    # 8 x 12 has its short side made 6, then 4 x 6 is cut out at (top 1, left 2) of 6 x 9.
    samples = open_samples(path, IMAGE, table(order="given", image={"fit": "crop", "short": 6}))
    (batch,) = samples
    found = (batch.labels or ())[0].boxes
    np.testing.assert_allclose(found, [[0, 0, 4.75, 4], [1.75, 2.75, 3.25, 3.5]])
    (row,) = samples.summary["dropped"]
    assert row["count"] == 1 and "outside" in row["what"] and row["first"] == "a.png box 0"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": [{"id": 7, "file_name": "a.png"}], "annotations": []}, ("without 'height'",)),
        ({"images": [{"id": 7, "file_name": "no.png", "width": 1, "height": 1}], "annotations": []}, ("'no.png'",)),
        ({"annotations": [{"id": 9, "image_id": 1, "category_id": 5, "bbox": [0, 0, 1, 1]}]}, ("annotation 9",)),
        ({"annotations": [{"id": 9, "image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1]}]}, ("annotation 9",)),
        ({"annotations": [{"id": 9, "image_id": 7, "category_id": 5, "bbox": [0, 0, 1]}]}, ("annotation 9",)),
        ({"annotations": [{"id": 9, "image_id": 7, "category_id": 5, "bbox": [0, 0, -1, 1]}]}, ("annotation 9", "-1")),
        ({"annotations": [{"id": 9, "image_id": 7, "category_id": 5}]}, ("annotation 9", "bbox")),
        ({"categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "dog"}], "annotations": []}, ("share a name",)),
        ({"categories": [{"id": 5, "name": "dog"}, {"id": 5, "name": "cat"}], "annotations": []}, ("share an id",)),
    ],
)
def test_annotations_that_do_not_fit(tmp_path: Path, changes: Any, words: tuple[str, ...]) -> None:
    path = coco(tmp_path, annotations(**changes))
    fails(lambda: open_samples(path, IMAGE, table(image={"fit": "resize"})), path, *words)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    resize = table(image={"fit": "resize"})
    path = coco(tmp_path)
    fails(lambda: open_samples(path, IMAGE, table(image={"fit": "resize"}, classes=("dog",))), "annotation 2", "cat")
    save_image(tmp_path / "images" / "b.png", 5, 6)
    fails(lambda: open_samples(path, IMAGE, resize), "b.png", "6 x 5", "6 x 4")
    path.write_text("{", "utf-8")
    fails(lambda: open_samples(path, IMAGE, resize), path, "not valid JSON")
    path.write_text('{"images": []}', "utf-8")
    fails(lambda: open_samples(path, IMAGE, resize), path, "without annotations, categories")
    coco(tmp_path / "two")
    coco(tmp_path / "two", where="annotations/other.json")
    fails(lambda: open_samples(tmp_path / "two", IMAGE, resize), "several annotation files", "other.json")
    bare = open_samples(tmp_path / "images", IMAGE, table(task="detect", image={"fit": "resize"}))
    assert any(row["what"].startswith("no labels") for row in bare.summary["notes"]), "good enough to calibrate with"
    for name in ("a", "b"):
        save_image(tmp_path / "classes" / name / "1.png")
    fails(lambda: open_samples(tmp_path / "classes", IMAGE, table(task="detect")), "no boxes")
