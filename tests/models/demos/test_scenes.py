"""The bundled detection demo: its scenes are whole, its network is the one that was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitwright.models.demos import digits, scenes
from bitwright.models.tasks.detection import Annotations, mean_average_precision
from bitwright.models.tasks.heads import Head
from bitwright.recipe import Recipe

pytest.importorskip("sklearn", reason="the digits come with scikit-learn (extra: onnx)")
ort = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime (extra: onnx)")


def test_scenes_are_the_same_every_time_and_differ_by_part() -> None:
    few, more = scenes.scenes("test", 3), scenes.scenes("test", 5)
    assert all((a.pixels == b.pixels).all() and (a.boxes == b.boxes).all() for a, b in zip(few, more, strict=False))
    assert not (few[0].pixels == scenes.scenes("calibration", 1)[0].pixels).all()


def test_boxes_lie_inside_apart_and_around_something() -> None:
    sizes, classes = [], set()
    for scene in scenes.scenes("train", 60):
        assert scene.pixels.shape == (scenes.SIDE, scenes.SIDE) and scene.pixels.dtype == np.uint8
        assert 1 <= len(scene.boxes) == len(scene.classes) <= scenes.MOST
        assert scene.boxes.min() >= 0 and scene.boxes.max() <= scenes.SIDE
        for i, (x1, y1, x2, y2) in enumerate(scene.boxes):
            inside = scene.pixels[int(y1) : int(y2), int(x1) : int(x2)]
            assert inside.std() > 8, "a digit stands out"
            sizes.append(max(x2 - x1, y2 - y1))
            others = np.delete(scene.boxes, i, axis=0)
            assert not ((others[:, :2] <= [x2, y2]).all(1) & (others[:, 2:] >= [x1, y1]).all(1)).any()
        classes |= set(scene.classes.tolist())
    assert classes == set(range(10)) and min(sizes) < 18 and 38 < max(sizes) <= scenes.SIZES[1]


def test_a_box_is_tight() -> None:
    """Of one digit on a plain ground: the outermost rows and columns of the box have ink, those outside have less."""
    image = np.zeros((1, 1, 8, 8), np.float32)
    image[0, 0, 1:7, 3:5] = 1
    scene = scenes.draw(image, np.array([1]), np.random.default_rng(3))
    height, width = scene.boxes[0, 3] - scene.boxes[0, 1], scene.boxes[0, 2] - scene.boxes[0, 0]
    assert 2 < height / width < 6, "a stroke of 6 x 2 pixels, stretched"


def test_the_bundled_network_finds_the_digits_of_the_test_scenes() -> None:
    data = Recipe.load(scenes.MODEL.with_name("recipe.toml")).data
    assert data.classes == digits.CLASSES and data.detection.boxes == "cxcywh"
    drawn = scenes.scenes("test", 100)
    session = ort.InferenceSession(str(scenes.MODEL), providers=["CPUExecutionProvider"])
    outputs = {"boxes": session.run(None, {scenes.INPUT: scenes.feed(drawn)})[0]}
    assert outputs["boxes"].shape == (100, 14, 144)
    head = Head(data.detection, len(data.classes))
    head.require(outputs, 100)
    found = mean_average_precision(
        head.read(outputs, 100), [Annotations.of(scene.boxes, scene.classes) for scene in drawn]
    )
    assert found.ap50 > 0.85 and found.map > 0.55  # 90 % and 62 % on 300 scenes where it was trained
    assert scenes.MODEL.stat().st_size < 400_000


def test_the_file_says_nothing_of_the_machine_it_was_made_on() -> None:
    data = scenes.MODEL.read_bytes()
    assert b".py" not in data and b"/home" not in data and b"/tmp" not in data


def test_weights_go_back_into_the_torch_module_and_compute_the_same() -> None:
    import torch

    from bitwright.models.demos.modules import Scenes, load

    network = load(Scenes(), scenes.MODEL)
    images = scenes.feed(scenes.scenes("calibration", 4))
    with torch.no_grad():
        ours = network(torch.from_numpy(images)).numpy()
    session = ort.InferenceSession(str(scenes.MODEL), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(ours, session.run(None, {scenes.INPUT: images})[0], atol=1e-3)


def test_written_scenes_are_read_by_the_recipe(tmp_path: Path) -> None:
    from bitwright.models.samples.open import open_samples

    recipe = Recipe.load(scenes.MODEL.with_name("recipe.toml"))
    folder = scenes.write(tmp_path / "calibration", "calibration", 5)
    data = recipe.data.model_copy(update={"order": "given"})
    samples = open_samples(folder, {scenes.INPUT: ("float32", (None, 1, 96, 96))}, data)
    assert samples.task == "detect" and samples.sides == (96, 96)
    batch, drawn = next(iter(samples)), scenes.scenes("calibration", 5)
    np.testing.assert_allclose(batch.feeds[scenes.INPUT], scenes.feed(drawn), atol=1e-6)
    for truth, scene in zip(batch.labels or (), drawn, strict=True):
        assert truth.boxes.tolist() == scene.boxes.tolist() and truth.classes.tolist() == scene.classes.tolist()
