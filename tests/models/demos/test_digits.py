"""The bundled vision demo: its data are whole, its network is the one that was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from bitwright.errors import DataError, ModelError
from bitwright.models.demos import digits
from bitwright.recipe import Recipe

pytest.importorskip("sklearn", reason="the digits come with scikit-learn (extra: onnx)")
ort = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime (extra: onnx)")


def test_parts_are_disjoint_and_cover_all_images() -> None:
    places = [np.arange(1797)[part] for part in digits.PARTS.values()]
    assert sorted(np.concatenate(places).tolist()) == list(range(1797))
    assert set(digits.PARTS) == set(get_args(digits.Part))


@pytest.mark.parametrize(("part", "count"), [("train", 1041), ("calibration", 256), ("test", 500)])
def test_a_part_is_ink_between_0_and_1_with_all_classes(part: Any, count: int) -> None:
    images, labels = digits.read(part)
    assert images.shape == (count, 1, 8, 8) and images.dtype == np.float32
    assert labels.shape == (count,) and labels.dtype == np.int64
    assert images.min() == 0 and images.max() == 1
    assert np.bincount(labels, minlength=10).min() >= 20
    again, _ = digits.read(part)
    assert (images == again).all()


def test_no_image_of_a_part_is_in_another() -> None:
    train, calibration, test = ({image.tobytes() for image in digits.read(part)[0]} for part in get_args(digits.Part))
    assert not train & calibration and not train & test and not calibration & test


def test_an_unknown_part_is_an_error_that_lists_the_others() -> None:
    with pytest.raises(DataError, match=r"'validation'. Choose one of train, calibration, test"):
        digits.read("validation")  # type: ignore[arg-type]


def test_the_bundled_network_reads_the_test_images() -> None:
    session = ort.InferenceSession(str(digits.MODEL), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == [digits.INPUT]
    images, labels = digits.read("test")
    logits = session.run(None, {digits.INPUT: images})[0]
    assert logits.shape == (500, 10)
    assert (logits.argmax(1) == labels).mean() >= 0.98  # 98.4 % where it was trained
    assert digits.MODEL.stat().st_size < 300_000


def test_the_file_keeps_batch_norm_for_us_to_fold() -> None:
    import onnx

    ops = [node.op_type for node in onnx.load(str(digits.MODEL)).graph.node]
    assert ops.count("BatchNormalization") == ops.count("Conv") == 9
    assert ops.count("Add") == 2 and {"MaxPool", "GlobalAveragePool", "Gemm"} <= set(ops)


def test_the_file_says_nothing_of_the_machine_it_was_made_on() -> None:
    data = digits.MODEL.read_bytes()
    assert b".py" not in data and b"/home" not in data and b"/tmp" not in data


def test_weights_go_back_into_the_torch_module_and_compute_the_same() -> None:
    import torch

    from bitwright.models.demos.modules import Digits, Words, load

    network = load(Digits(), digits.MODEL)
    images, _ = digits.read("calibration")
    with torch.no_grad():
        ours = network(torch.from_numpy(images)).numpy()
    session = ort.InferenceSession(str(digits.MODEL), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(ours, session.run(None, {digits.INPUT: images})[0], atol=1e-4)
    with pytest.raises(ModelError, match=r"holds no stem.0.weight of shape \(64, 40, 5\)"):
        load(Words(), digits.MODEL)


def test_the_recipe_beside_the_network_loads() -> None:
    recipe = Recipe.load(digits.MODEL.with_name("recipe.toml"))
    assert recipe.data.classes == digits.CLASSES
    assert recipe.data.samples == digits.PARTS["calibration"].stop - digits.PARTS["calibration"].start


def test_a_written_part_is_read_by_the_recipe(tmp_path: Path) -> None:
    from bitwright.models.samples.open import open_samples

    recipe = Recipe.load(digits.MODEL.with_name("recipe.toml"))
    path = digits.write(tmp_path / "new" / "calibration.npz", "calibration")
    samples = open_samples(path, {digits.INPUT: ("float32", (None, 1, 8, 8))}, recipe.data)
    images, labels = digits.read("calibration")
    batches = list(samples)
    assert samples.task == "classify" and samples.classes == digits.CLASSES
    np.testing.assert_array_equal(np.concatenate([batch.feeds[digits.INPUT] for batch in batches]), images)
    assert [label for batch in batches for label in batch.labels or ()] == labels.tolist()
