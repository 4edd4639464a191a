"""What a plan learns from one sample: networks that cannot run, cannot be compared, or are damaged, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from bitwright import library
from bitwright.errors import DataError, InputError, ModelError, TensorError
from bitwright.models.network.graph import Graph
from bitwright.models.network.trial import attempt, require_same, require_signal
from tests.networks import IMAGE, Net

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3, 16, 16)).astype(np.float32)


def plan(model: onnx.ModelProto, tmp: Path, x: Any = X) -> Any:
    """The plan for the network on samples `x`, as plain data."""
    onnx.save(model, tmp / "net.onnx")
    np.savez(tmp / "data.npz", x=x)
    return library.plan(tmp / "net.onnx", tmp / "out.onnx", calib=str(tmp / "data.npz")).summary


def noisy(op: str, **attributes: Any) -> onnx.ModelProto:
    """Noise, scaled by a constant of 1, is added between two convolutions."""
    n = Net()
    x = n.add("Relu", n.conv("x", 3, 8))
    inputs = [x] if op.endswith("Like") else [n.add("Sigmoid", x)] if op == "Bernoulli" else []
    x = n.add("Add", x, n.add("Mul", n.add(op, *inputs, **attributes), n.value(1.0, np.float32)))
    return n.model(IMAGE, [n.conv(n.add("Relu", x), 8, 4)])


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("RandomNormalLike", {}),
        ("RandomUniformLike", {"seed": 3.0}),
        ("RandomNormal", {"shape": [1, 8, 16, 16]}),
        ("RandomUniform", {"shape": [1, 8, 16, 16]}),
        ("Bernoulli", {}),
    ],
)
def test_random_numbers_are_no_fault_of_a_kernel(op: str, attributes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"answers differently each time it runs: {op} draws new numbers"):
        plan(noisy(op, **attributes), tmp_path)


def test_random_numbers_that_reach_no_output_do_no_harm(tmp_path: Path) -> None:
    model = noisy("RandomNormalLike")
    next(t for t in model.graph.initializer if not t.dims).CopyFrom(
        onnx.numpy_helper.from_array(np.float32(0), next(t.name for t in model.graph.initializer if not t.dims))
    )
    assert len(plan(model, tmp_path)["quantized"]) == 2


def test_training_mode_is_named(tmp_path: Path) -> None:
    n = Net()
    x = n.add("Dropout", n.conv("x", 3, 8), n.value(0.5, np.float32), n.value(True))
    with pytest.raises(ModelError, match=r"dropout1: Dropout in training mode. Export it in evaluation mode"):
        plan(n.model(IMAGE, [n.conv(x, 8, 4)]), tmp_path)
    n = Net()
    x = n.norm(n.conv("x", 3, 8), 8)
    n.nodes[-1].attribute.append(helper.make_attribute("training_mode", 1))
    n.nodes[-1].output.extend(["mean", "variance"])
    with pytest.raises(ModelError, match="BatchNormalization in training mode"):
        plan(n.model(IMAGE, [n.conv(x, 8, 4)]), tmp_path)


def test_samples_that_are_all_zero_are_refused(tmp_path: Path) -> None:
    n = Net()
    model = n.model(IMAGE, [n.conv(n.add("Relu", n.conv("x", 3, 8)), 8, 4)])
    with pytest.raises(DataError, match=r"input 'x' is zero in every sample") as caught:
        plan(model, tmp_path, np.zeros_like(X))
    assert caught.value.key == "data.source"
    late = np.zeros_like(X)
    late[14, 0, 0, 0] = 1
    assert plan(model, tmp_path, late)["quantized"]


def test_one_of_several_inputs_may_be_zero() -> None:
    require_signal([{"a": np.zeros(3), "b": np.ones(3)}], ["a", "b"], "data")
    with pytest.raises(DataError, match="input 'a' and 'b' are zero"):
        require_signal([{"a": np.zeros(3), "b": np.zeros(3)}], ["a", "b"], "data")


@pytest.mark.parametrize("place", ["weights", "values"])
def test_numbers_too_large_to_be_squared_are_named(place: str, tmp_path: Path) -> None:
    n = Net()
    x = n.conv("x", 3, 8)
    if place == "values":
        x = n.add("Pow", n.add("Add", n.add("Abs", x), n.value(10, np.float32)), n.value(17, np.float32))
    n.add("Conv", x, n.weight(4, 8, 3, 3, scale=1e20 if place == "weights" else 0.1))
    with pytest.raises(TensorError, match=f"{place} up to") as caught:
        plan(n.model(IMAGE, [n.nodes[-1].output[0]]), tmp_path)
    assert str(caught.value.where).startswith("conv")


def test_a_network_that_the_runtime_refuses_is_refused_by_the_plan(tmp_path: Path) -> None:
    n = Net()
    n.nodes.append(helper.make_node("Mystery", [n.conv("x", 3, 8)], ["z"], "theirs", domain="their.domain"))
    y = n.conv("z", 8, 4)
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", c, 16, 16])
        for name, c in (("x", 3), (y, 4))
    ]
    graph = helper.make_graph(n.nodes, "net", ends[:1], ends[1:], n.stored)
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("their.domain", 1)]
    with pytest.raises(InputError, match=r"Mystery.*weights alone"):
        plan(helper.make_model(graph, opset_imports=domains, ir_version=8), tmp_path)


def test_preparing_may_not_change_the_function_but_noise_is_no_answer(tmp_path: Path) -> None:
    for gap, wrong in ((1.0, True), (1e30, False)):  # a sigmoid far from zero answers with rounding noise or nothing
        n = Net()
        y = n.add("Abs", n.conv(n.add("Relu", n.conv("x", 3, 8)), 8, 4))
        y = n.add("Sigmoid", n.add("Sub", y, n.value(gap, np.float32)))
        model = n.model(IMAGE, [y])
        onnx.save(model, tmp_path / "net.onnx")
        graph = Graph(model)
        require_same(graph, tmp_path / "net.onnx", {"x": X[:1]})
        graph.set_bias(graph.layers[1], np.full(4, 3, np.float32))
        if wrong:
            with pytest.raises(ModelError, match="preparing it changed what it computes"):
                require_same(graph, tmp_path / "net.onnx", {"x": X[:1]})
        else:
            require_same(graph, tmp_path / "net.onnx", {"x": X[:1]})


def test_sizes_are_those_of_one_sample() -> None:
    n = Net()
    model = n.model({"x": ["batch", 3, "height", "width"]}, [n.conv("x", 3, 8)])
    graph = Graph(model, bind={"height": None, "width": None})
    attempt(graph, graph.layers, ["x"], {"x": X[:2]}, 2)
    assert graph.sizes[graph.layers[0].raw] == 8 * 16 * 16
