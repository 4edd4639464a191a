"""Raw heads: every layout of the same boxes reads the same, suppression is ONNX's own, a wrong table is one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitwright.errors import RecipeError
from bitwright.models.tasks.heads import Head, suppress
from bitwright.recipe import Detection, Recipe
from tests.models.samples.sources import fails

RNG = np.random.default_rng(0)
CENTRES, SIZES = RNG.uniform(20, 80, (2, 11, 2)), RNG.uniform(5, 30, (2, 11, 2))
CORNERS = np.concatenate([CENTRES - SIZES / 2, CENTRES + SIZES / 2], 2).astype(np.float32)
CENTRED = np.concatenate([CENTRES, SIZES], 2).astype(np.float32)
SCORES = RNG.uniform(0.05, 0.95, (2, 11, 3)).astype(np.float32)
ALL = {"nms": 1.0, "threshold": 0.0}


def head(classes: int | None = 3, sides: tuple[int, int] | None = (100, 100), **keys: Any) -> Head:
    return Head(Detection(**({"boxes": "cxcywh"} | keys)), classes, sides)


def logit(x: Any) -> Any:
    return np.log(x / (1 - x))


def rows(found: Any) -> list[list[float]]:
    """Boxes as a sorted table, to be compared whatever their order."""
    boxes, scores, classes = found.boxes.round(3).tolist(), found.scores.round(4).tolist(), found.classes.tolist()
    return sorted([*box, score, kind] for box, score, kind in zip(boxes, scores, classes, strict=True))


def flat(parts: list[Any], axis: int = 2) -> dict[str, Any]:
    table = np.concatenate(parts, 2)
    return {"out": table if axis == 2 else table.swapaxes(1, 2)}


half = np.full((2, 11, 1), 0.5, np.float32)
bare = np.full((2, 11, 1), 0.1, np.float32)
besides = np.concatenate([bare, SCORES], 2)
softmax = np.log(besides / (0.1 + SCORES.sum(2, keepdims=True)))


@pytest.mark.parametrize(
    ("keys", "outputs", "factor"),
    [
        ({"boxes": "xyxy"}, flat([CORNERS, SCORES]), 1),
        ({"boxes": "xywh"}, flat([np.concatenate([CORNERS[..., :2], SIZES], 2), SCORES]), 1),
        ({}, flat([CENTRED, SCORES], 1), 1),
        ({"layout": "columns"}, flat([CENTRED, SCORES], 1), 1),
        ({"objectness": True}, flat([CENTRED, half, SCORES]), 0.5),
        ({"objectness": True, "scores": "logit"}, flat([CENTRED, 0 * half, logit(SCORES)]), 0.5),
        ({"scores": "logit"}, {"boxes": CENTRED, "scores": logit(SCORES)}, 1),
        ({"relative": True}, {"b": CENTRED / 100, "s": SCORES}, 1),
        ({"background": "last"}, flat([CENTRED, SCORES, bare], 1), 1),
        ({"background": "first"}, {"boxes": CENTRED, "maps": np.zeros((2, 3, 4, 7, 7)), "b": besides}, 1),
        ({"background": "first", "scores": "softmax"}, {"pred_boxes": CENTRED, "logits": softmax}, None),
    ],
)  # fmt: skip
def test_every_layout_reads_the_same(keys: dict[str, Any], outputs: Any, factor: float | None) -> None:
    scores = SCORES / (0.1 + SCORES.sum(2, keepdims=True)) if factor is None else SCORES * factor
    one = head(**ALL, **keys)
    one.require(outputs, 2)
    for image, found in enumerate(one.read(outputs, 2)):
        wanted = [[*CORNERS[image, i].round(3), scores[image, i, k], k] for i in range(11) for k in range(3)]
        np.testing.assert_allclose(rows(found), sorted(wanted), atol=2e-3)
    alone = {name: x[0] for name, x in outputs.items()}
    assert rows(one.read(alone, 1)[0]) == rows(one.read(outputs, 2)[0]), "one image may come without its axis"


def test_sides_are_height_and_width() -> None:
    found = head(boxes="xyxy", layout="rows", relative=True, classes=1, sides=(50, 200)).read(
        {"b": np.float32([[[0.1, 0.2, 0.5, 0.6]]]), "s": np.float32([[[0.9]]])}, 1
    )[0]
    np.testing.assert_allclose(found.boxes, [[20, 10, 100, 30]], atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("most", [0.0, 0.3, 0.5, 0.9])
def test_suppression_is_that_of_onnx(seed: int, most: float) -> None:
    ort = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    rng = np.random.default_rng(seed)
    boxes = rng.uniform(0, 60, (1, 80, 2))
    boxes = np.concatenate([boxes, boxes + rng.uniform(5, 40, (1, 80, 2))], 2).astype(np.float32)
    scores = rng.permutation(np.linspace(0, 1, 160)).reshape(1, 2, 80).astype(np.float32)
    given = {"boxes": TensorProto.FLOAT, "scores": TensorProto.FLOAT, "n": TensorProto.INT64, "iou": TensorProto.FLOAT,
             "least": TensorProto.FLOAT}  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("NonMaxSuppression", list(given), ["kept"])], "nms",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in given.items()],
        [helper.make_tensor_value_info("kept", TensorProto.INT64, None)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    limits = {"n": np.int64([100]), "iou": np.float32([most]), "least": np.float32([0.2])}
    kept = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"boxes": boxes, "scores": scores, **limits}
    )[0]
    outputs = flat([boxes, scores.swapaxes(1, 2)])
    found = head(2, boxes="xyxy", nms=most, threshold=0.2).read(outputs, 1)[0]
    wanted = [[*boxes[0, i], scores[0, k, i], k] for _, k, i in kept.tolist()]
    np.testing.assert_allclose(rows(found), sorted(wanted), atol=1e-3)
    assert 2 <= len(wanted) < 160 or most == 1


def test_equal_scores_keep_their_order() -> None:
    boxes = np.float64([[0, 0, 9, 9], [1, 0, 10, 9], [50, 50, 60, 60]])
    assert suppress(boxes, 0.5).tolist() == [0, 2]
    outputs = flat([boxes[None].astype(np.float32), np.full((1, 3, 1), 0.7, np.float32)])
    assert head(1, boxes="xyxy").read(outputs, 1)[0].boxes[:, 0].tolist() == [0, 50]
    assert suppress(boxes[:0], 0.5).tolist() == []


@pytest.mark.parametrize(
    ("one", "outputs", "words"),
    [
        (head(), flat([CENTRED, SCORES[..., :2]]), ("out [2, 11, 6]", "7 values", "data.classes")),
        (head(), flat([CENTRED, SCORES]), None),
        (head(2), flat([CENTRED[:, :6], SCORES[:, :6, :2]]), ("several ways", "Set layout")),
        (head(None), flat([CENTRED, SCORES]), ("not known", "data.classes")),
        (head(None, layout="rows"), flat([CENTRED, SCORES]), None),
        (head(), {"out": CENTRED[0]}, ("out [11, 4]", "2 images")),
        (head(), flat([CENTRED, logit(SCORES)]), ("not probabilities", 'scores = "logit"')),
        (head(), flat([CENTRED / 100, SCORES]), ("not pixels", "relative = true")),
        (head(relative=True), flat([CENTRED, SCORES]), ("not shares", "Leave out relative")),
        (head(relative=True, sides=None), flat([CENTRED / 100, SCORES]), ("no image", "Give images")),
        (head(4), {"a": CENTRED, "b": np.concatenate([SCORES, bare], 2)}, ("no boxes with 8 values",)),
        (head(4), {"boxes": CENTRED, "b": np.concatenate([SCORES, bare], 2)}, None),
    ],
)
def test_a_wrong_table_is_one_line(one: Head, outputs: Any, words: tuple[str, ...] | None) -> None:
    if words is None:
        one.require(outputs, 2)
        assert len(one.read(outputs, 2)) == 2
        return
    error = fails(lambda: one.require(outputs, 2), "the network's outputs", *words)
    assert error.key == "data.detection"


def test_settings_of_a_raw_head_come_with_its_boxes() -> None:
    with pytest.raises(RecipeError, match=r"data.detection: nms is for a raw head. Set boxes = ") as caught:
        Recipe.loads("[data.detection]\nnms = 0.6")
    assert caught.value.key == "data.detection"
    assert Recipe.loads("[data.detection]\npictures = 3").data.detection.pictures == 3
    with pytest.raises(RecipeError, match=r"unknown option 'box'. Did you mean boxes"):
        Recipe.loads("[data.detection]\nbox = 'xyxy'")
