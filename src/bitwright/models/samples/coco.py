"""COCO's detection format: a folder of images and a JSON file of boxes (cocodataset.org/#format-data)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.errors import DataError
from bitwright.files.plain import parse
from bitwright.models.samples import images
from bitwright.models.samples.folders import Files, PictureReader, read_bytes
from bitwright.models.samples.preprocess import Notes
from bitwright.models.tasks.detection import Annotations

KEYS = {"images", "annotations", "categories"}


def find(folder: Path) -> Path | None:
    """The annotations of a folder: its one .json file with COCO's keys, or that in its subfolder `annotations`.

    Raises DataError where there are several.
    """
    found = [path for path in sorted([*folder.glob("*.json"), *folder.glob("annotations/*.json")]) if _is_coco(path)]
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:4])
        raise DataError(
            f"it holds several annotation files: {names}", where=str(folder), fix="Name the .json file itself"
        )
    return found[0] if found else None


def open_coco(path: Path, plan: images.Picture, entry: str, classes: Sequence[str]) -> Coco:
    """The images of the annotations at `path`.

    A class's number is its place in `classes`, by default in the order of COCO's category ids. Boxes are given in
    pixels of the network's input, cut at its edges; one that lies wholly outside is left out, and counted.

    Raises DataError naming the file and the entry for whatever does not fit together.
    """

    def wrong(what: str, fix: str = "Correct the file") -> DataError:
        return DataError(what, where=str(path), fix=fix)

    table = _load(path)
    if KEYS - set(table):
        raise wrong(f"without {', '.join(sorted(KEYS - set(table)))}", "Give annotations in COCO's format")
    try:
        category = {row["id"]: str(row["name"]) for row in sorted(table["categories"], key=lambda row: row["id"])}
        pictures = {row["id"]: (row["file_name"], row["height"], row["width"]) for row in table["images"]}
    except (KeyError, TypeError) as error:
        raise wrong(f"an image or category without {error}") from error
    names = list(classes) or list(category.values())
    if len(pictures) != len(table["images"]) or len(category) != len(table["categories"]):
        raise wrong("two images or two categories share an id")
    if len(set(names)) != len(names):
        raise wrong("two categories share a name")
    boxes: dict[Any, list[tuple[Any, ...]]] = {key: [] for key in pictures}
    for row in table["annotations"]:
        name = f"annotation {row.get('id', '?') if isinstance(row, dict) else row!r}"
        try:
            image, kind, (x, y, w, h) = row["image_id"], category[row["category_id"]], map(float, row["bbox"])
            boxes[image].append((names.index(kind), x, y, w, h, bool(row.get("iscrowd", 0))))
        except (KeyError, TypeError) as error:
            raise wrong(f"{name} names an image or category that is not there, or lacks a field ({error})") from error
        except ValueError as error:
            raise wrong(f"{name} has a class outside data.classes, or a box of no four numbers ({error})") from error
        if not all(map(math.isfinite, (x, y, w, h))) or w < 0 or h < 0:
            raise wrong(f"{name} has the box {row['bbox']}")
    root = path.parent.parent if path.parent.name == "annotations" else path.parent
    dropped, paths, labels = Notes(), [], []
    for key, (file, height, width) in pictures.items():
        paths.append(_locate(root, path, str(file)))
        labels.append(
            _place(boxes[key], images.place(plan, height, width), plan.size or (height, width), dropped, file)
        )
    files = [str(file) for file, _, _ in pictures.values()]
    source = Coco(paths, files, labels, _Sized(plan, paths, pictures), entry, dropped, "coco")
    source.classes = names
    return source


class Coco(Files):
    """Files with `Annotations` as labels, and the names of their classes."""

    classes: list[str]


class _Sized(PictureReader):
    """Images whose size must be the one their annotations were made for."""

    def __init__(self, plan: images.Picture, paths: list[Path], pictures: dict[Any, tuple[Any, int, int]]) -> None:
        super().__init__(plan)
        self.sizes = {path: (height, width) for path, (_, height, width) in zip(paths, pictures.values(), strict=True)}

    def look(self, data: bytes, path: Path) -> None:
        super().look(data, path)
        height, width = images.look(data, path, self.plan)
        if (height, width) != self.sizes[path]:
            wanted = f"{self.sizes[path][1]} x {self.sizes[path][0]}"
            what = f"the image is {width} x {height} pixels, its annotations were made for {wanted}"
            raise DataError(what, where=str(path), fix="Give the image that was annotated")


def _place(
    rows: list[tuple[Any, ...]], to: tuple[float, float, int, int], size: tuple[int, int], dropped: Notes, name: str
) -> Annotations:
    """Boxes x, y, width, height of the file -> corners in the network's input."""
    sx, sy, left, top = to
    found = np.asarray([row[1:5] for row in rows], np.float64).reshape(-1, 4)
    found[:, 2:] += found[:, :2]
    found = found * [sx, sy, sx, sy] - [left, top, left, top]
    cut = np.clip(found, 0, [size[1], size[0], size[1], size[0]])
    inside = ((cut[:, 2:] > cut[:, :2]) | (found[:, 2:] == found[:, :2])).all(axis=1)
    for place in np.flatnonzero(~inside):
        dropped.add("box outside the part of the image that the network sees", f"{name} box {place}")
    kinds = np.asarray([row[0] for row in rows], np.int64)
    crowd = np.asarray([row[5] for row in rows], bool)
    return Annotations(cut[inside], kinds[inside], crowd[inside])


def _locate(root: Path, path: Path, name: str) -> Path:
    """The image called `name`: below the annotations' folder, the one above, or `images` in either."""
    places = [root / name, root / "images" / name, path.parent / name, root.parent / "images" / name]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise DataError(f"image {name!r} is not there", where=str(path), fix=f"Put it in {root / 'images'}")
    return found


def _load(path: Path) -> dict[str, Any]:
    try:
        table = parse(read_bytes(path))
    except ValueError as error:
        raise DataError(
            f"not valid JSON ({error})", where=str(path), fix="Give annotations in COCO's format"
        ) from error
    return table if isinstance(table, dict) else {}


def _is_coco(path: Path) -> bool:
    try:
        return set(_load(path)) >= {"images", "annotations"}
    except DataError:
        return False
