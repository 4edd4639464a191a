"""Drawn scenes with handwritten digits in them: pictures for the bundled detection demo that anyone may have.

Each scene is SIDE x SIDE grey pixels: a ground of smooth noise, a slope of light, stripes and blots, and on it one to
five of scikit-learn's digits (`models.demos.digits`), stretched to 14 to 44 pixels, lighter or darker than the ground.
They are drawings, not photographs: what a detector does on them says how well it survives quantization, no more. The
parts use other digits, which other people wrote, and other grounds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bitwright.models.demos import digits
from bitwright.models.demos.digits import CLASSES, Part

Floats = npt.NDArray[Any]
MODEL = Path(__file__).parents[2] / "content" / "scenes" / "model.onnx"
"""The bundled network; see the card beside it."""
INPUT = "scene"
SIDE = 96
COUNTS = {"calibration": 128, "test": 300}
"""Scenes of each part."""
SEEDS: dict[str, int] = {"train": 1, "calibration": 2, "test": 3}
SIZES = 14, 44
"""Pixels of a digit's longer side."""
MOST = 5
"""Digits in a scene."""
INK = 0.35
"""Share of full ink from which on a pixel counts as part of a digit: what the box is drawn around."""


class Scene(NamedTuple):
    """Pixels uint8 [SIDE, SIDE]; boxes float64 [n, 4] (x1, y1, x2, y2), classes int64 [n]."""

    pixels: npt.NDArray[np.uint8]
    boxes: Floats
    classes: npt.NDArray[np.int64]


def draw(images: Floats, labels: npt.NDArray[np.int64], chance: np.random.Generator) -> Scene:
    """One scene with some of the digits `images` [n, 1, 8, 8] of classes `labels`; `chance` decides all else."""
    ground = _ground(chance)
    boxes: list[tuple[int, int, int, int]] = []
    classes: list[int] = []
    for _ in range(int(chance.integers(1, MOST + 1))):
        chosen = int(chance.integers(len(images)))
        long = int(chance.integers(SIZES[0], SIZES[1] + 1))
        wide = max(8, round(long * chance.uniform(0.65, 1.0)))
        ink = _stretch(images[chosen, 0], long, wide)
        rows, columns = (np.flatnonzero(ink.max(axis=axis) > INK) for axis in (1, 0))
        ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        height, width = ink.shape
        left, top = (int(chance.integers(0, SIDE - side + 1)) for side in (width, height))
        box = (left, top, left + width, top + height)
        tone, strength = chance.uniform(0.3, 0.55), 1 if chance.random() < 0.5 else -1
        if any(_touch(box, other) for other in boxes):
            continue
        place = ground[top : box[3], left : box[2]]
        target = np.clip(place.mean() + strength * tone, 0, 1)
        if abs(target - place.mean()) < 0.25:  # too near to white or black: the other way
            target = np.clip(place.mean() - strength * tone, 0, 1)
        place += ink * (target - place)
        boxes.append(box)
        classes.append(int(labels[chosen]))
    ground += chance.normal(0, chance.uniform(0, 0.03), ground.shape)
    pixels = np.round(255 * np.clip(ground, 0, 1)).astype(np.uint8)
    return Scene(pixels, np.array(boxes, np.float64).reshape(-1, 4), np.array(classes, np.int64))


def _ground(chance: np.random.Generator) -> Floats:
    """A textured ground [SIDE, SIDE] in 0 .. 1."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    ground = np.full((SIDE, SIDE), chance.uniform(0.2, 0.8))
    ground += chance.uniform(-0.25, 0.25) * (x - 0.5) + chance.uniform(-0.25, 0.25) * (y - 0.5)
    for cells in (3, 6, 12, 24):
        ground += _stretch(chance.normal(0, chance.uniform(0, 0.07), (cells, cells)), SIDE, SIDE)
    angle, waves = chance.uniform(0, np.pi), chance.uniform(2, 14)
    phase = 2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle))
    ground += chance.uniform(0, 0.06) * np.sin(phase + chance.uniform(0, 2 * np.pi))
    for _ in range(int(chance.integers(0, 4))):  # blots, round or long, that are no digits
        centre, radius, turn = chance.uniform(0, 1, 2), chance.uniform(0.02, 0.15, 2), chance.uniform(0, np.pi)
        dx, dy = x - centre[0], y - centre[1]
        along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        inside = np.clip(4 * (1 - np.hypot(along / radius[0], across / radius[1])), 0, 1)
        ground += chance.uniform(-0.3, 0.3) * inside
    return ground


def _stretch(image: Floats, height: int, width: int) -> Floats:
    """`image` resampled to [height, width] by linear interpolation, its edges held."""
    down, across = _weights(image.shape[0], height), _weights(image.shape[1], width)
    found: Floats = down @ image @ across.T
    return found


def _weights(size: int, to: int) -> Floats:
    """The matrix [to, size] of linear interpolation between the centres of pixels."""
    place = np.clip((np.arange(to) + 0.5) * size / to - 0.5, 0, size - 1)
    found: Floats = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(size)))
    return found


def _touch(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two boxes overlap, or are next to each other."""
    return all(one[i] <= other[i + 2] and other[i] <= one[i + 2] for i in (0, 1))


def scenes(part: Part, count: int) -> list[Scene]:
    """The first `count` scenes of a part: a smaller number is a prefix of a larger one.

    Raises DataError for another part, or where scikit-learn is not installed.
    """
    images, labels = digits.read(part)
    return [draw(images, labels, np.random.default_rng([SEEDS[part], number])) for number in range(count)]


def feed(drawn: list[Scene]) -> npt.NDArray[np.float32]:
    """Scenes as the network takes them: float32 [n, 1, SIDE, SIDE] in 0 .. 1."""
    return np.stack([scene.pixels for scene in drawn])[:, None].astype(np.float32) / np.float32(255)


def write(folder: Path, part: Part, count: int) -> Path:
    """Write `scenes(part, count)` as a COCO folder: images/*.png and annotations/instances.json; returns `folder`."""
    from bitwright.models.samples.images import pillow

    drawn = scenes(part, count)
    pictures, annotations = folder / "images", folder / "annotations"
    for place in (pictures, annotations):
        place.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for number, scene in enumerate(drawn):
        pillow().Image.fromarray(scene.pixels).save(pictures / f"{number:04}.png")
        for (x1, y1, x2, y2), kind in zip(scene.boxes.tolist(), scene.classes.tolist(), strict=True):
            box, area = [x1, y1, x2 - x1, y2 - y1], (x2 - x1) * (y2 - y1)
            row = {"id": len(rows), "image_id": number, "category_id": kind, "bbox": box, "area": area, "iscrowd": 0}
            rows.append(row)
    table = {
        "images": [{"id": n, "file_name": f"{n:04}.png", "height": SIDE, "width": SIDE} for n in range(count)],
        "annotations": rows,
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES)],
    }
    (annotations / "instances.json").write_text(json.dumps(table), "utf-8")
    return folder
