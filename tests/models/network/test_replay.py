"""A replayed network computes in torch what ONNX Runtime computes, its weights get gradients, and it never guesses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx", reason="needs onnx (extra: onnx)")
ort = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime (extra: onnx)")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from bitwright.errors import ModelError  # noqa: E402
from bitwright.models.demos import digits, spoken  # noqa: E402
from bitwright.models.network.graph import Graph  # noqa: E402
from bitwright.models.network.replay import OPERATORS, Replay  # noqa: E402
from tests.networks import shared  # noqa: E402


class Plain:
    """A model as it stands: the part of Graph that Replay reads, without any preparation."""

    def __init__(self, model: Any) -> None:
        self.model, self.layers = model, ()


def network(nodes: list[Any], constants: dict[str, Any], shape: tuple[int, ...], opset: int = 17) -> Any:
    """One input "x" of `shape`, one output "y" of any shape."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def both(model: Any, x: Any) -> tuple[Any, Any]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        ours = Replay(Plain(model))({"x": torch.from_numpy(x)})["y"].numpy()
    return ours, session.run(None, {"x": x})[0]


W = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
I64 = np.int64
CASES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "a convolution": ("Conv", [W, np.ones(4, np.float32)], dict(pads=[1, 1, 1, 1], strides=[2, 1])),
    "uneven padding": ("Conv", [W], dict(pads=[1, 0, 2, 1])),
    "a grouped convolution": ("Conv", [W[:3, :1]], dict(group=3, dilations=[2, 1])),
    "padding SAME_UPPER": ("Conv", [W], dict(auto_pad="SAME_UPPER", strides=[2, 2])),
    "padding SAME_LOWER": ("Conv", [W], dict(auto_pad="SAME_LOWER", strides=[2, 2])),
    "max pooling": ("MaxPool", [], dict(kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 0])),
    "average pooling": ("AveragePool", [], dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0])),
    "padded average pooling": ("AveragePool", [], dict(kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)),
    "the mean": ("GlobalAveragePool", [], {}),
    "a mean over axes": ("ReduceMean", [], dict(axes=[2, 3], keepdims=0)),
    "a sum with a constant": ("Add", [np.float32([[[1]], [[2]], [[3]]])], {}),
    "a difference": ("Sub", [np.float32(2)], {}),
    "a product": ("Mul", [np.float32(2)], {}),
    "a quotient": ("Div", [np.float32(3)], {}),
    "relu": ("Relu", [], {}),
    "leaky relu": ("LeakyRelu", [], dict(alpha=0.2)),
    "clip": ("Clip", [np.float32(0), np.float32(0.8)], {}),
    "parametric relu": ("PRelu", [np.float32([[[0.1]], [[0.2]], [[-0.3]]])], {}),
    "elu": ("Elu", [], dict(alpha=0.7)),
    "the error function": ("Erf", [], {}),
    "an exponential": ("Exp", [], {}),
    "a logarithm": ("Log", [], {}),
    "a root": ("Sqrt", [], {}),
    "a power": ("Pow", [np.float32(2)], {}),
    "minus": ("Neg", [], {}),
    "the size": ("Abs", [], {}),
    "a reciprocal": ("Reciprocal", [], {}),
    "softplus": ("Softplus", [], {}),
    "expand": ("Expand", [np.array([2, 2, 1, 1, 6], I64)], {}),
    "gather": ("Gather", [np.array([[0, -1], [2, 2]], I64)], dict(axis=1)),
    "layer normalization": ("LayerNormalization", [np.float32(range(6)), np.ones(6, np.float32)], dict(epsilon=0.01)),
    "a sum over axes": ("ReduceSum", [np.array([-1, 1], I64)], dict(keepdims=0)),
    "a sum over all": ("ReduceSum", [], {}),
    "a transposed convolution": (
        "ConvTranspose", [W[:3].transpose(0, 1, 3, 2)], dict(strides=[2, 1], pads=[1, 0, 0, 1], output_padding=[1, 0])
    ),
    "a transposed convolution of groups": ("ConvTranspose", [W[:3, :2], np.ones(6, np.float32)], dict(group=3)),
    "larger by whole factors": (
        "Resize", [np.float32([]), np.float32([1, 1, 2, 3])], dict(mode="nearest", nearest_mode="floor",
        coordinate_transformation_mode="asymmetric")
    ),
    "larger by sizes": (
        "Resize", [np.float32([]), np.float32([]), np.array([2, 3, 14, 6], I64)], dict(mode="nearest")
    ),
    "sigmoid": ("Sigmoid", [], {}),
    "hard sigmoid": ("HardSigmoid", [], dict(alpha=0.3, beta=0.4)),
    "hard swish": ("HardSwish", [], {}),
    "tanh": ("Tanh", [], {}),
    "softmax": ("Softmax", [], dict(axis=1)),
    "flatten": ("Flatten", [], dict(axis=2)),
    "reshape with 0 and -1": ("Reshape", [np.array([0, -1, 2], I64)], {}),
    "transpose": ("Transpose", [], dict(perm=[0, 2, 1, 3])),
    "a slice with steps": ("Slice", [np.array(v, I64) for v in ([1, 0], [99, -1], [2, 3], [2, 1])], {}),
    "a pad": ("Pad", [np.array([0, 1, 0, 0, 0, 2, 1, 0], I64), np.float32(0.5)], {}),
    "unsqueeze": ("Unsqueeze", [np.array([1, -1], I64)], {}),
    "identity": ("Identity", [], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_operator_computes_what_onnx_runtime_computes(name: str) -> None:
    op, values, attributes = CASES[name]
    constants = {f"c{i}": value for i, value in enumerate(values)}
    x = np.random.default_rng(1).normal(size=(2, 3, 7, 6)).astype(np.float32)
    model = network([helper.make_node(op, ["x", *constants], ["y"], "node", **attributes)], constants, x.shape)
    ours, theirs = both(model, x)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_products_concat_and_squeeze_compute_what_onnx_runtime_computes() -> None:
    rng = np.random.default_rng(2)
    constants = {
        "w": rng.normal(size=(6, 5)).astype(np.float32),
        "b": rng.normal(size=5).astype(np.float32),
        "m": rng.normal(size=(10, 4)).astype(np.float32),
        "axes": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Squeeze", ["x", "axes"], ["s"], "squeeze"),
        helper.make_node("Gemm", ["s", "w", "b"], ["g"], "gemm", alpha=0.5, beta=2.0),
        helper.make_node("Dropout", ["g"], ["d"], "dropout"),
        helper.make_node("Concat", ["d", "g"], ["c"], "concat", axis=1),
        helper.make_node("MatMul", ["c", "m"], ["y"], "matmul"),
    ]
    ours, theirs = both(network(nodes, constants, (3, 1, 6)), rng.normal(size=(3, 1, 6)).astype(np.float32))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(("opset", "even"), [(17, {}), (20, {"num_outputs": 2})])
def test_parts_and_choices_compute_what_onnx_runtime_computes(opset: int, even: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    constants = {"sizes": np.array([1, 4], np.int64), "which": rng.random((3, 4)) > 0.5, "zero": np.float32(0)}
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["a", "b"], "uneven", axis=1),
        helper.make_node("Split", ["b"], ["c", "d"], "even", axis=1, **even),
        helper.make_node("Where", ["which", "b", "zero"], ["w"], "where"),
        helper.make_node("Concat", ["a", "d", "c", "w"], ["y"], "concat", axis=1),
    ]
    model = network(nodes, constants, (3, 5), opset)
    ours, theirs = both(model, rng.normal(size=(3, 5)).astype(np.float32))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_computes_what_onnx_runtime_computes(approximate: str) -> None:
    node = helper.make_node("Gelu", ["x"], ["y"], "gelu", approximate=approximate)
    ours, theirs = both(network([node], {}, (3, 5), 20), np.linspace(-4, 4, 15, dtype=np.float32).reshape(3, 5))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_resize_that_does_not_repeat_values_is_refused() -> None:
    scales = {"roi": np.float32([]), "scales": np.float32([1, 1, 2, 2])}
    for attributes in (dict(mode="linear"), dict(mode="nearest", coordinate_transformation_mode="align_corners")):
        model = network([helper.make_node("Resize", ["x", *scales], ["y"], "r", **attributes)], scales, (1, 1, 3, 3))
        with pytest.raises(ModelError, match="a Resize that does not repeat values cannot learn"):
            Replay(Plain(model))({"x": torch.zeros(1, 1, 3, 3)})


def test_every_operator_is_tested() -> None:
    others = {"Gemm", "MatMul", "Concat", "Squeeze", "Dropout", "Split", "Where", "Gelu"}
    assert set(OPERATORS) == {case[0] for case in CASES.values()} | others


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        (digits.MODEL, (4, 1, 8, 8)),
        (spoken.MODEL, (4, 40, 101)),
        (shared("models", "resnet20-cifar10", "model.onnx"), (2, 3, 32, 32)),
    ],
    ids=["digits", "words", "resnet20"],
)
def test_a_whole_network_computes_what_onnx_runtime_computes(path: Path | None, shape: tuple[int, ...]) -> None:
    if path is None:
        pytest.skip("no shared models beside this checkout")
    graph = Graph.open(path)
    (name,) = graph.inputs
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    (theirs,) = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {name: x})
    out = Replay(graph)({name: torch.from_numpy(x)})
    (ours,) = out.values()
    np.testing.assert_allclose(ours.detach().numpy(), theirs, atol=1e-4)


def test_gradients_reach_every_weight_and_bias() -> None:
    graph = Graph.open(digits.MODEL)
    replay = Replay(graph)
    sum(replay({digits.INPUT: torch.rand(2, 1, 8, 8)}).values()).square().sum().backward()
    assert len(list(replay.parameters())) == 20
    for layer in graph.layers:
        assert layer.bias is not None
        for name in (layer.weight, layer.bias):
            assert replay.parameter(name).grad is not None


def test_a_rounding_is_seen_by_all_readers_of_a_tensor() -> None:
    graph = Graph.open(digits.MODEL)
    replay = Replay(graph)
    replay.activations[graph.layers[0].output] = torch.zeros_like
    with torch.no_grad():
        values = replay.run({digits.INPUT: torch.rand(2, 1, 8, 8)})
    assert not values[graph.layers[0].output].any()
    assert torch.equal(values["logits"][0], values["logits"][1]), "some path did not see it"


def test_tensors_that_cannot_be_negative_are_known_by_their_operators() -> None:
    graph = Graph.open(digits.MODEL)
    replay = Replay(graph)
    known = replay.never_negative()
    with torch.no_grad():
        values = replay.run({digits.INPUT: torch.randn(64, 1, 8, 8) * 3})
    for name, value in values.items():
        assert (name in known) == bool((value >= 0).all()), name


def test_an_operator_that_cannot_learn_is_named() -> None:
    model = network([helper.make_node("Sin", ["x"], ["y"], "odd one")], {}, (1, 2))
    with pytest.raises(ModelError, match="odd one: operator Sin cannot learn"):
        Replay(Plain(model))
