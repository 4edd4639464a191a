"""Learned steps: what is trained is what ONNX Runtime then computes, in fewer bits, with less loss than rounding."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

pytest.importorskip("onnx", reason="needs onnx (extra: onnx)")
ort = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime (extra: onnx)")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn (extra: onnx)")

from bitwright.core.observe import Affine  # noqa: E402
from bitwright.errors import ModelError, RecipeError, TensorError  # noqa: E402
from bitwright.files.onnx import decode  # noqa: E402
from bitwright.methods import lsq  # noqa: E402
from bitwright.models.demos import digits  # noqa: E402
from bitwright.models.network.finetune import (  # noqa: E402
    Integers,
    Learner,
    Lessons,
    finetune,
    held,
    round_to_nearest,
    widths,
)
from bitwright.models.network.graph import Graph  # noqa: E402
from bitwright.models.network.placement import place  # noqa: E402
from bitwright.models.network.replay import Replay  # noqa: E402
from tests import networks  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors on a crowded machine: more threads only wait for each other. Also makes runs repeatable."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def images() -> list[tuple[dict[str, Any], Any]]:
    x, y = digits.read("train")
    return [({digits.INPUT: x[i : i + 64]}, y[i : i + 64]) for i in range(0, 256, 32)]


def opened() -> tuple[Graph, Any]:
    graph = Graph.open(digits.MODEL)
    return graph, place(graph, "x86")


def logits(model: Any, x: Any) -> Any:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {digits.INPUT: x})[0]


def accuracy(found: Integers) -> float:
    x, y = digits.read("test")
    graph, placement = opened()
    return float((logits(found.write(graph, placement), x).argmax(1) == y).mean())


@pytest.mark.parametrize("target", ["x86", "arm"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_held_codes_round_and_saturate_as_a_quantizer_of_fewer_bits(bits: int, target: str) -> None:
    x = np.random.default_rng(0).exponential(2, 1000).astype(np.float32)
    scale = 0.37
    expected = np.clip(np.round(x / np.float32(scale)), 0, 2**bits - 1) * np.float32(scale)
    affine = held(scale, bits, target)
    assert affine.bits == 8 and affine.signed == (target == "arm")
    np.testing.assert_allclose(affine.fake(x), expected, rtol=1e-6)


def test_the_edges_and_what_can_be_negative_keep_8_bits() -> None:
    graph, placement = opened()
    weights, activations = widths(graph, placement, 3, 4)
    layers = graph.layers
    assert [weights[layer.weight] for layer in layers] == [8] + [3] * (len(layers) - 2) + [8]
    assert activations[digits.INPUT] == 8 and activations[layers[-1].input] == 8
    assert activations[layers[1].input] == 4
    # The second convolution of a block ends in a sum, before ReLU.
    assert activations[layers[2].output] == 8
    for group in placement.shared:
        assert len({activations[name] for name in group}) == 1
    for bad in (1, 9):
        with pytest.raises(RecipeError, match="Choose 2 to 8"):
            widths(graph, placement, bad)


def test_8_bits_by_rounding_alone_are_the_float_network() -> None:
    x, y = digits.read("test")
    graph, placement = opened()
    ours = logits(round_to_nearest(graph, placement, images(), 8).write(graph, placement), x)
    theirs = logits(Graph.open(digits.MODEL).model, x)
    assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.99
    assert (ours.argmax(1) == y).mean() >= 0.98


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_training_sees_exactly_what_the_file_computes(bits: int) -> None:
    """Every tensor of the network on every image: the same codes; logits to float32's own precision."""
    graph, placement = opened()
    start = round_to_nearest(graph, placement, images(), bits)
    learner = Learner(graph, placement, start, Lessons([], Replay(graph)), bits)
    x, _ = digits.read("calibration")
    with torch.no_grad():
        ours = learner.replay.run({digits.INPUT: torch.from_numpy(x)})
    model = learner.integers([]).write(graph, placement)
    np.testing.assert_allclose(logits(model, x), ours["logits"].numpy(), atol=1e-4)
    names = [name for name in placement.activations if name != digits.INPUT]
    for name in names:
        model.graph.output.add(name=name)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for name, theirs in zip(names, session.run(names, {digits.INPUT: x}), strict=True):
        step = float(learner.activations[name].positive().detach())
        wrong = np.abs(ours[name].numpy() - theirs) > step / 2
        assert wrong.mean() < 1e-4, name  # a tie of half a step may fall either way, on another processor


def test_a_written_weight_has_no_more_values_than_its_bits_allow() -> None:
    graph, placement = opened()
    model = round_to_nearest(graph, placement, images()[:2], 2).write(graph, placement)
    values = decode(model)
    for layer in graph.layers[1:-1]:
        rows = values[layer.weight].reshape(layer.outputs, -1)
        assert max(len(np.unique(row)) for row in rows) <= 4, layer.name


def test_learning_beats_rounding_at_2_bits_and_can_be_repeated() -> None:
    graph, placement = opened()
    before = graph.model.SerializeToString()
    rounded = round_to_nearest(graph, placement, images(), 2)
    heard = []
    found = finetune(
        graph, placement, images(), 2, options=lsq.Options(epochs=3, rate=5e-3), start=rounded, report=heard.append
    )
    assert graph.model.SerializeToString() == before, "the float network was changed"
    assert [epoch.number for epoch in heard] == [1, 2, 3] and found.losses[-1] < found.losses[0]
    assert accuracy(found) > accuracy(rounded) + 0.1
    again = finetune(graph, placement, images(), 2, options=lsq.Options(epochs=3, rate=5e-3), start=rounded)
    for name, tensor in found.weights.items():
        assert (np.asarray(tensor.codes) == np.asarray(again.weights[name].codes)).all()


def test_without_labels_the_float_network_is_the_teacher() -> None:
    graph, placement = opened()
    unlabelled = [(feeds, None) for feeds, _ in images()]
    rounded = round_to_nearest(graph, placement, unlabelled, 2)
    assert (
        accuracy(finetune(graph, placement, unlabelled, 2, options=lsq.Options(epochs=4, rate=5e-3)))
        > accuracy(rounded) + 0.2
    )


def test_the_penalty_draws_weights_to_their_codes() -> None:
    graph, placement = opened()

    def distance(penalty: float) -> float:
        start = round_to_nearest(graph, placement, images(), 3)
        kept: list[Learner] = []

        class Kept(Learner):
            def __init__(self, *given: Any) -> None:
                super().__init__(*given)
                kept.append(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bitwright.models.network.finetune.Learner", Kept)
            finetune(
                graph,
                placement,
                images()[:4],
                3,
                options=lsq.Options(epochs=3, rate=2e-3, penalty=penalty),
                start=start,
            )
        return sum(float((w - q).detach().square().sum()) for w, q in kept[0].pairs())

    assert distance(1000.0) < 0.9 * distance(0.0)


def test_nan_is_an_error_that_names_the_tensor() -> None:
    graph, placement = opened()
    bad = np.full((2, 1, 8, 8), np.nan, np.float32)
    with pytest.raises(TensorError, match="image: holds NaN or Inf"):
        round_to_nearest(graph, placement, [({digits.INPUT: bad}, None)], 4)


@pytest.mark.parametrize("options", [dict(epochs=0), dict(rate=-0.1), dict(rate=0, step_rate=0), dict(penalty=-1.0)])
def test_odd_options_are_errors(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        lsq.Options(**options)


def test_every_affine_is_one_that_onnx_can_store() -> None:
    graph, placement = opened()
    for affine in round_to_nearest(graph, placement, images()[:2], 4).activations.values():
        assert isinstance(affine, Affine) and affine.bits == 8 and 0 <= affine.zero <= 255 and affine.scale > 0


def test_a_transposed_convolution_cannot_learn() -> None:
    graph = Graph(networks.upsample())
    with pytest.raises(ModelError, match="operator ConvTranspose cannot learn"):
        finetune(graph, place(graph, "x86"), [(networks.feeds(graph.model, 2), None)], 4)
