"""Networks as other people's tools write them: each is planned, quantized, certified, checked and reported.

Every case is a small network with one property that real exports have. What must hold is the same for all: the output
runs with other samples than those it was made with, and answers nearly as the float network does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from bitwright.cli import app
from bitwright.models.network.graph import Graph
from bitwright.models.network.session import Session
from bitwright.models.samples.open import open_samples
from bitwright.models.samples.preprocess import Feeding
from bitwright.recipe import Recipe
from tests import networks
from tests.models.samples.sources import save_wav
from tests.networks import IMAGE, Net

CASES = networks.shared("cases", "onnx")


def run(command: str, tmp: Path) -> str:
    """What a command that must succeed prints."""
    result = CliRunner().invoke(app, command.format(tmp=tmp).split())
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def go_through(tmp: Path, options: str = "") -> tuple[Session, Session]:
    """Plan, quantize, check and report net.onnx on data.npz; the sessions before and after."""
    assert "plan:" in run(f"plan {{tmp}}/net.onnx --calib {{tmp}}/data.npz {options}", tmp)
    run(f"quantize {{tmp}}/net.onnx --calib {{tmp}}/data.npz -o {{tmp}}/out.onnx {options}", tmp)
    assert run("check {tmp}/out.onnx --against {tmp}/net.onnx", tmp).splitlines()[-1] == "sound"
    assert "output SQNR" in run("report {tmp}/out.onnx", tmp)
    return Session(tmp / "net.onnx"), Session(tmp / "out.onnx")


def near(before: Session, after: Session, feeds: dict[str, Any], least: float = 25) -> None:
    """Both answer alike, in the same types."""
    wanted, found = before.run(feeds), after.run(feeds)
    assert wanted.keys() == found.keys()
    for name, x in wanted.items():
        y = found[name]
        assert (x.dtype, x.shape) == (y.dtype, y.shape), name
        a, b = x.astype(np.float64), y.astype(np.float64)
        noise = float(((a - b) ** 2).sum())
        assert noise == 0 or 10 * np.log10(float((a**2).sum()) / noise) > least, name


def images(count: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    """Random normal images [count, 3, 16, 16]."""
    return np.random.default_rng(seed).normal(size=(count, 3, 16, 16)).astype(dtype)


# ---- shape arithmetic -----------------------------------------------------------------------


def head(n: Net, x: str, channels: int) -> str:
    return str(n.add("Gemm", n.add("Flatten", n.add("GlobalAveragePool", x)), n.weight(10, channels), transB=1))


def view_batch() -> onnx.ModelProto:
    """x.view(x.size(0), -1), as PyTorch exports it: a scalar is taken out of the shape."""
    n = Net()
    x = n.add("Relu", n.conv("x", 3, 8))
    size = n.add("Gather", n.add("Shape", x), n.value(0, np.int64), axis=0)
    shape = n.add("Concat", n.add("Unsqueeze", size, n.value([0], np.int64)), n.value([-1], np.int64), axis=0)
    return n.model(IMAGE, [n.add("MatMul", n.add("Reshape", x, shape), n.weight(2048, 10))])


def constant_nodes() -> onnx.ModelProto:
    """The same with Constant nodes of every kind instead of initializers."""
    n = Net()
    x = n.add("Relu", n.conv("x", 3, 8))
    size = n.add("Gather", n.add("Shape", x), n.add("Constant", value_int=0), axis=0)
    one = n.add("Reshape", size, n.add("Constant", value_ints=[1]))
    shape = n.add("Concat", one, n.add("Constant", value=numpy_helper.from_array(np.int64([-1]))), axis=0)
    x = n.add("Mul", n.add("Reshape", x, shape), n.add("Constant", value_float=0.5))
    return n.model(IMAGE, [n.add("MatMul", x, n.weight(2048, 10))])


def resized(mode: str, by: str) -> Callable[[], onnx.ModelProto]:
    """An upsampling by constant sizes, by those of another tensor, or by scales that are computed."""

    def make() -> onnx.ModelProto:
        n = Net()
        a = n.add("Relu", n.conv("x", 3, 8))
        b = n.add("Relu", n.conv(n.add("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2]), 8, 8))
        index = [n.value([i], np.int64) for i in (0, 2, 4)]
        inputs = [b, "", "", n.value([1, 8, 16, 16], np.int64)]
        if by != "constant":
            low, high = (n.add("Slice", n.add("Shape", x), *index[i : i + 2]) for x, i in ((b, 0), (a, 1)))
            inputs[3] = n.add("Concat", low, high, axis=0)
        if by == "scales":
            there, here = (n.add("Cast", x, to=TensorProto.FLOAT) for x in (inputs[3], n.add("Shape", b)))
            inputs = [b, "", n.add("Div", there, here)]
        up = n.add("Resize", *inputs, mode=mode, **({"nearest_mode": "floor"} if mode == "nearest" else {}))
        shape = {"x": [1 if by == "constant" else "batch", 3, 16, 16]}
        return n.model(shape, [n.conv(n.add("Concat", a, up, axis=1), 16, 4)])

    return make


def arithmetic() -> onnx.ModelProto:
    """Positions, masks, paddings and repetitions computed from the shape of the input, in integers of rank 0 to 2."""
    n = Net()
    x = n.add("Relu", n.conv("x", 3, 8))
    zero, one, two = (n.value(i, np.int64) for i in range(3))
    shape = n.add("Shape", x)
    height = n.add("Gather", shape, two, axis=0)
    half = n.add("Div", height, two)
    half = n.add("Cast", n.add("Floor", n.add("Cast", half, to=TensorProto.FLOAT)), to=TensorProto.INT64)
    rows = n.add("Range", zero, height, one)
    low = n.add("Where", n.add("Less", rows, half), rows, n.add("Sub", height, one))
    x = n.add("Gather", x, n.add("Mod", n.add("Add", low, one), height), axis=2)
    ends = n.add("ConstantOfShape", n.value([8], np.int64), value=numpy_helper.from_array(np.int64([0])))
    spots, pad = n.value([[2], [6]], np.int64), n.add("Expand", one, n.value([2], np.int64))
    x = n.add("Pad", x, n.add("ScatterND", ends, spots, pad))
    sides = n.add("Slice", shape, n.value([2], np.int64), n.value([4], np.int64))
    area = n.add("ReduceProd", sides, axes=[0], keepdims=0)
    most = n.add("ReduceMax", sides, axes=[0], keepdims=1)
    ratio = n.add("Div", n.add("Cast", area, to=TensorProto.FLOAT), n.value(256.0, np.float32))
    x = n.add("Mul", x, ratio)
    x = n.add("Slice", x, n.value([1], np.int64), n.add("Add", most, one), n.value([2], np.int64))
    times = n.add("Concat", n.value([1, 1, 1], np.int64), n.add("Unsqueeze", one, zero), axis=0)
    x = n.add("Tile", x, times)
    return n.model(IMAGE, [head(n, n.add("Relu", n.conv(x, 8, 8)), 8)])


def unknown_rank() -> onnx.ModelProto:
    """A shape found by NonZero has a length that nobody knows: neither has what is reshaped by it."""
    n = Net()
    x = n.add("Relu", n.conv("x", 3, 8))
    shape = n.add("Shape", x)
    y = n.add("Reshape", x, n.add("Squeeze", n.add("Gather", shape, n.add("NonZero", shape))))
    y = n.add("Transpose", n.add("Transpose", y))
    y = n.add("Relu", n.add("Concat", n.add("Add", x, y), y, axis=1))
    return n.model(IMAGE, [n.add("Identity", n.conv(y, 16, 4))], ["batch", 4, 16, 16])


def sequences() -> onnx.ModelProto:
    """torch.chunk of open size: a sequence of tensors."""
    n = Net()
    parts = n.add("SplitToSequence", n.add("Relu", n.conv("x", 3, 8)), n.value([4, 4], np.int64), axis=1)
    left, right = (n.add("SequenceAt", parts, n.value(i, np.int64)) for i in range(2))
    x = n.add("ConcatFromSequence", n.add("SequenceConstruct", right, left), axis=1)
    return n.model(IMAGE, [head(n, n.add("Relu", n.conv(x, 8, 8)), 8)])


SHAPES = {
    "view batch": view_batch,
    "constant nodes": constant_nodes,
    "arithmetic": arithmetic,
    "unknown rank": unknown_rank,
    "sequences": sequences,
} | {f"{mode} by {by}": resized(mode, by) for mode in ("nearest", "linear") for by in ("constant", "sizes", "scales")}


@pytest.mark.parametrize("case", SHAPES)
def test_shapes_are_computed_as_the_runtime_does(case: str, tmp_path: Path) -> None:
    onnx.save(SHAPES[case](), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=images(20))
    count = 1 if "constant" in case and "by" in case else 3
    near(*go_through(tmp_path), {"x": images(count, 7)})


def test_an_export_that_resizes_by_sizes_runs_in_integers_from_end_to_end(tmp_path: Path) -> None:
    onnx.save(resized("nearest", "sizes")(), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=images(20))
    said = run("plan {tmp}/net.onnx --calib {tmp}/data.npz", tmp_path)
    assert "3 layers as int8" in said and "stay float" not in said


# ---- old and odd files ----------------------------------------------------------------------


def plain(dtype: type = np.float32, ir: int = 8, opset: int = 17) -> onnx.ModelProto:
    """Two convolutions and a product in one precision."""
    rng = np.random.default_rng(0)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    shapes = {"w": [8, 3, 3, 3], "b": [8], "v": [16, 8, 3, 3], "m": [16, 10]}
    stored = [
        numpy_helper.from_array((rng.normal(size=s) / np.prod(s[1:]) ** 0.5).astype(dtype), n)
        for n, s in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "v"], ["c"], "second", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flat"),
        helper.make_node("MatMul", ["f", "m"], ["y"], "head"),
    ]
    inputs = [helper.make_tensor_value_info("x", kind, ["batch", 3, 16, 16])]
    if ir < 4:
        inputs += [helper.make_tensor_value_info(t.name, kind, list(t.dims)) for t in stored]
    outputs = [helper.make_tensor_value_info("y", kind, ["batch", 10])]
    graph = helper.make_graph(nodes, "net", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


@pytest.mark.parametrize("opset", [7, 9, 11, 13])
def test_weights_among_the_inputs_as_ir_3_has_them(opset: int, tmp_path: Path) -> None:
    onnx.save(plain(ir=3, opset=opset), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=images(20))
    before, after = go_through(tmp_path)
    near(before, after, {"x": images(3, 7)})
    made = onnx.load(tmp_path / "out.onnx")
    assert made.ir_version >= 4 and [value.name for value in made.graph.input] == ["x"]


def test_a_float16_network_keeps_its_interface(tmp_path: Path) -> None:
    onnx.save(plain(np.float16), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=images(20, dtype=np.float16))
    assert "float16 network: read as float32" in run("plan {tmp}/net.onnx --calib {tmp}/data.npz", tmp_path)
    near(*go_through(tmp_path), {"x": images(3, 7, np.float16)})


def test_a_float64_network_keeps_its_interface(tmp_path: Path) -> None:
    n = Net()
    n.stored = [numpy_helper.from_array(n.rng.normal(size=s), f"w{i}") for i, s in enumerate(([12, 16], [16, 4]))]
    x = n.add("MatMul", n.add("Relu", n.add("MatMul", "x", "w0")), "w1")
    ends = [
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["batch", size]) for name, size in (("x", 12), (x, 4))
    ]
    graph = helper.make_graph(n.nodes, "net", ends[:1], ends[1:], n.stored)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "net.onnx"
    )
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(40, 12)))
    near(*go_through(tmp_path), {"x": np.random.default_rng(1).normal(size=(3, 12))})


def test_a_precision_without_kernels_is_named(tmp_path: Path) -> None:
    onnx.save(plain(np.float64), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=images(20, dtype=np.float64))
    refused = CliRunner().invoke(app, f"plan {tmp_path}/net.onnx --calib {tmp_path}/data.npz".split())
    assert refused.exit_code == 2 and "Export it in float32" in refused.output


@pytest.mark.parametrize("opset", [7, 9, 10])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scale", [2.0, 1.5, 0.5])
def test_old_resizing_keeps_its_coordinates(opset: int, mode: str, scale: float, tmp_path: Path) -> None:
    if opset < 10 and scale < 1:
        pytest.skip("Upsample only makes things larger")
    model = plain(opset=opset, ir=4)
    scales = [1.0, 1.0, scale, scale]
    op, inputs, attributes = ("Resize" if opset == 10 else "Upsample"), ["r", "s"], {"mode": mode}
    if opset == 7:
        inputs, attributes = ["r"], attributes | {"scales": scales}
    else:
        model.graph.initializer.append(numpy_helper.from_array(np.float32(scales), "s"))
    model.graph.node.insert(2, helper.make_node(op, inputs, ["u"], "resize", **attributes))
    model.graph.node[3].input[0] = "u"
    onnx.save(model, tmp_path / "net.onnx")
    prepared = Session(Graph.open(tmp_path / "net.onnx").model).run({"x": images(2)})["y"]
    np.testing.assert_allclose(prepared, Session(tmp_path / "net.onnx").run({"x": images(2)})["y"], atol=1e-5)


@pytest.mark.parametrize("returned", ["w", "b", "v", "m"])
def test_what_a_network_stores_and_returns_stays_exact(returned: str, tmp_path: Path) -> None:
    model = plain()
    stored = next(t for t in model.graph.initializer if t.name == returned)
    model.graph.output.append(helper.make_tensor_value_info(returned, TensorProto.FLOAT, list(stored.dims)))
    onnx.save(model, tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=images(20))
    before, after = go_through(tmp_path)
    feeds = {"x": images(3, 7)}
    near(before, after, feeds)
    assert np.array_equal(after.run(feeds)[returned], numpy_helper.to_array(stored))


def test_a_weight_that_others_read_too_is_checked_by_its_codes(tmp_path: Path) -> None:
    n = Net()
    w = n.weight(16, 16)
    x = n.add("Gather", w, n.add("ArgMax", "x", axis=1, keepdims=0))
    x = n.add("MatMul", n.add("Relu", n.add("MatMul", x, n.weight(16, 16))), w)
    onnx.save(n.model({"x": ["batch", 16]}, [x]), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32))
    near(*go_through(tmp_path), {"x": np.random.default_rng(1).normal(size=(3, 16)).astype(np.float32)})


def test_operators_of_another_domain_stay_float(tmp_path: Path) -> None:
    n = Net()
    x = n.add("Relu", n.conv("x", 3, 8))
    n.nodes.append(helper.make_node("Gelu", [x], ["g"], "theirs", domain="com.microsoft"))
    y = head(n, n.add("Relu", n.conv("g", 8, 8)), 8)
    graph = helper.make_graph(
        n.nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE["x"])],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, ["batch", 10])], n.stored,
    )  # fmt: skip
    domains = [helper.make_opsetid("", 11), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=8), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=images(20))
    assert "com.microsoft.Gelu is not a standard operator" in run(
        "plan {tmp}/net.onnx --calib {tmp}/data.npz", tmp_path
    )
    near(*go_through(tmp_path), {"x": images(3, 7)})


def test_sizes_that_values_decide_have_no_sqnr_and_do_no_harm(tmp_path: Path) -> None:
    model = plain()
    model.graph.node.append(helper.make_node("NonZero", ["r"], ["where"], "places"))
    model.graph.output.append(helper.make_tensor_value_info("where", TensorProto.INT64, [4, None]))
    onnx.save(model, tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=images(20))
    go_through(tmp_path)
    said = run("measure {tmp}/net.onnx {tmp}/out.onnx --heldout {tmp}/data.npz", tmp_path)
    assert "SQNR of where       none: its size depends on the values" in said


def test_a_layer_behind_a_selection_by_value_is_quantized(tmp_path: Path) -> None:
    """The second stage of a detector: as many rows as the first one finds."""
    n = Net()
    x = n.add("Relu", n.add("Gemm", "x", n.weight(16, 12), n.weight(16), transB=1))
    rows = n.add("NonZero", n.add("Greater", n.add("ReduceMean", x, axes=[1], keepdims=0), n.value(0.3, np.float32)))
    x = n.add("Gather", x, n.add("Squeeze", rows, n.value([0], np.int64)), axis=0)
    y = n.add("Relu", n.add("Gemm", x, n.weight(16, 16), n.weight(16), transB=1))
    total = n.add("ReduceMean", n.add("Gemm", y, n.weight(4, 16), n.weight(4), transB=1), axes=[0])
    onnx.save(n.model({"x": ["batch", 12]}, [total]), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(200, 12)).astype(np.float32))
    go_through(tmp_path)


# ---- scalars, state and branches ------------------------------------------------------------


def streaming(*, branches: bool = False) -> onnx.ModelProto:
    """Frames of 16 numbers, an LSTM whose state goes from call to call, and a scalar that the answer depends on."""
    n = Net()
    x = n.add("Relu", n.add("Gemm", "frame", n.weight(24, 16), n.weight(24), transB=1))
    x = n.add("Unsqueeze", x, n.value([0], np.int64))
    h, c = (n.add("Gather", "state", n.value([i], np.int64), axis=0) for i in range(2))
    w, r, b = n.weight(1, 32, 24), n.weight(1, 32, 8), n.weight(1, 64)
    _, h, c = n.add("LSTM", x, w, r, b, "", h, c, hidden_size=8, outputs=3)
    state = n.add("Concat", h, c, axis=0)
    y = n.add("Gemm", n.add("Squeeze", h, n.value([0], np.int64)), n.weight(4, 8), n.weight(4), transB=1)
    y = n.add("Mul", y, n.add("Cast", "rate", to=TensorProto.FLOAT))
    n.nodes += [helper.make_node("Sigmoid", [y], ["output"], "last"),
                helper.make_node("Identity", [state], ["stateN"], "keep")]  # fmt: skip
    inputs = [helper.make_tensor_value_info("frame", TensorProto.FLOAT, ["batch", 16]),
              helper.make_tensor_value_info("state", TensorProto.FLOAT, [2, "batch", 8]),
              helper.make_tensor_value_info("rate", TensorProto.INT64, [])]  # fmt: skip
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 4]),
               helper.make_tensor_value_info("stateN", TensorProto.FLOAT, [2, "batch", 8])]  # fmt: skip
    nodes, stored = n.nodes, n.stored
    if branches:
        names = [f"inner_{value.name}" for value in outputs]
        ends = [helper.make_node("Identity", [v.name], [name]) for v, name in zip(outputs, names, strict=True)]
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
        inner = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        for node in inner:  # the outer names belong to the If
            for i, name in enumerate(node.output):
                node.output[i] = f"b_{name}" if name in ("output", "stateN") else name
        for end in ends:
            end.input[0] = f"b_{end.input[0]}"
        yes = helper.make_graph([*inner, *ends], "then", [], results, stored)
        zeros = [helper.make_node("Identity", ["state"], ["other_state"]),
                 helper.make_node("Slice", ["frame", "zero", "four", "one"], ["other_output"])]  # fmt: skip
        rest = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("other_output", "other_state")
        ]
        no = helper.make_graph(zeros, "else", [], rest)
        either = {"then_branch": yes, "else_branch": no}
        nodes = [helper.make_node("Equal", ["rate", "three"], ["is_three"], "ask"),
                 helper.make_node("If", ["is_three"], ["output", "stateN"], "choose", **either)]  # fmt: skip
        stored = [numpy_helper.from_array(np.int64(3), "three")]
        stored += [numpy_helper.from_array(np.int64([i]), s) for s, i in (("zero", 0), ("one", 1), ("four", 4))]
    graph = helper.make_graph(nodes, "net", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def frames(*shape: int, seed: int = 0) -> Any:
    """Random normal frames [..., 16]."""
    return np.random.default_rng(seed).normal(size=(*shape, 16)).astype(np.float32)


def calls(session: Session, count: int = 5) -> list[dict[str, Any]]:
    """What a user of the network gets who feeds its state back."""
    state, found = np.zeros((2, 2, 8), np.float32), []
    for call in range(count):
        found.append(session.run({"frame": frames(2, seed=call), "state": state, "rate": np.array(3)}))
        state = found[-1]["stateN"]
    return found


def test_state_is_carried_and_a_scalar_is_given_once(tmp_path: Path) -> None:
    onnx.save(streaming(), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", frame=frames(24, 6), rate=np.int64(3))
    said = run("plan {tmp}/net.onnx --calib {tmp}/data.npz", tmp_path)
    assert "state is stateN of the call before" in said and "18 samples of up to 6 calls to calibrate" in said
    before, after = go_through(tmp_path)
    for x, y in zip(calls(before), calls(after), strict=True):
        assert np.abs(x["output"] - y["output"]).max() < 0.05
        assert np.abs(x["stateN"] - y["stateN"]).max() < 0.05
    assert "SQNR of stateN" in run("measure {tmp}/net.onnx {tmp}/out.onnx --heldout {tmp}/data.npz", tmp_path)


def clips(folder: Path) -> list[int]:
    """WAV files below `folder`; how many frames of 16 samples, 12 apart, each holds."""
    counts = [1 + i % 4 for i in range(24)]
    for i, count in enumerate(counts):
        codes = np.random.default_rng(i).normal(size=16 + 12 * (count - 1) + i % 3) * 8000
        save_wav(folder / f"{i:02}_clip.wav", codes.astype(int))
    return counts


def test_clips_are_cut_into_calls_that_carry_state(tmp_path: Path) -> None:
    onnx.save(streaming(), tmp_path / "net.onnx")
    counts = clips(tmp_path / "clips")
    (tmp_path / "recipe.toml").write_text(
        "[network]\nconstant = { rate = 3 }\n[data.audio]\nframe = 16\nstep = 12\n[data]\nheldout_samples = 4\n"
    )
    words = "{tmp}/net.onnx --calib {tmp}/clips --recipe {tmp}/recipe.toml"
    said = run(f"plan {words}", tmp_path)
    assert "state is stateN of the call before" in said and "18 samples of up to 4 calls to calibrate" in said
    run(f"quantize {words} -o {{tmp}}/out.onnx", tmp_path)
    said = run("measure {tmp}/net.onnx {tmp}/out.onnx --heldout {tmp}/clips --recipe {tmp}/recipe.toml", tmp_path)
    assert float(said.partition("SQNR of stateN")[2].split()[0]) > 25
    # Frames come in order, and the state begins at zero with each clip.
    graph = Graph.open(tmp_path / "net.onnx", constant={"rate": 3})
    feeding = Feeding(graph.axes, graph.fixed, {"state": "stateN"}, Session(tmp_path / "net.onnx").run)
    data = Recipe.load(tmp_path / "recipe.toml").data.model_copy(update={"order": "given", "batch": 1})
    seen = list(open_samples(tmp_path / "clips", graph.inputs, data, feeding=feeding))
    assert [batch.goes_on for batch in seen] == [call > 0 for count in counts for call in range(count)]
    assert all(batch.feeds["state"].any() == batch.goes_on for batch in seen)
    assert np.array_equal(seen[1].feeds["frame"][:, 12:], seen[2].feeds["frame"][:, :4])
    assert seen[0].labels is None


@pytest.mark.parametrize(
    ("audio", "said"),
    [
        ("frame = 8", "8 samples, but input 'frame' is [?, 16]"),
        ("step = 8", "a step without frames"),
        ('frame = 16\nfeatures = "logmel"', "features"),
        ("frame = 0", "frame"),
    ],
)
def test_frames_that_do_not_fit_are_refused(audio: str, said: str, tmp_path: Path) -> None:
    onnx.save(streaming(), tmp_path / "net.onnx")
    clips(tmp_path / "clips")
    recipe = f"[network]\nconstant = {{ rate = 3 }}\n[data.audio]\n{audio}\n"
    (tmp_path / "recipe.toml").write_text(recipe)
    words = f"plan {tmp_path}/net.onnx --calib {tmp_path}/clips --recipe {tmp_path}/recipe.toml"
    refused = CliRunner().invoke(app, words.split())
    assert refused.exit_code == 2 and said in refused.output and len(refused.output.splitlines()) == 1
    (tmp_path / "recipe.toml").write_text(recipe.replace("[data.audio]", 'state = { state = "none" }\n[data.audio]'))
    refused = CliRunner().invoke(app, words.split())
    assert refused.exit_code == 2 and len(refused.output.splitlines()) == 1


def test_frames_need_state(tmp_path: Path) -> None:
    onnx.save(networks.KINDS["speech"](), tmp_path / "net.onnx")
    clips(tmp_path / "clips")
    (tmp_path / "recipe.toml").write_text("[data.audio]\nframe = 400\n")
    words = f"plan {tmp_path}/net.onnx --calib {tmp_path}/clips --recipe {tmp_path}/recipe.toml"
    refused = CliRunner().invoke(app, words.split())
    assert refused.exit_code == 2 and "frames for a network without state" in refused.output


def test_lines_of_json_carry_state_too(tmp_path: Path) -> None:
    onnx.save(streaming(), tmp_path / "net.onnx")
    rows = [{"frame": frames(1 + i % 3, seed=i).tolist(), "rate": 3} for i in range(24)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    said = run("plan {tmp}/net.onnx --calib {tmp}/data.jsonl", tmp_path)
    assert "state is stateN of the call before" in said and "18 samples of up to 3 calls" in said
    run("quantize {tmp}/net.onnx --calib {tmp}/data.jsonl -o {tmp}/out.onnx", tmp_path)
    assert "SQNR of stateN" in run("measure {tmp}/net.onnx {tmp}/out.onnx --heldout {tmp}/data.jsonl", tmp_path)
    for wrong, told in (
        ([row | {"label": 1} for row in rows], "labels for samples of 3 calls"),
        ([*rows, {"frame": [], "rate": 3}], "line 25: inputs of 0 calls"),
        ([*rows, {"frame": 3, "rate": 3}], "line 25: inputs of 0 calls"),
    ):
        (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, wrong)))
        refused = CliRunner().invoke(app, f"plan {tmp_path}/net.onnx --calib {tmp_path}/data.jsonl".split())
        assert refused.exit_code == 2 and told in refused.output


def test_a_branch_that_an_input_chooses_is_taken_when_the_recipe_says_its_value(tmp_path: Path) -> None:
    onnx.save(streaming(branches=True), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", frame=frames(24, 6))
    refused = CliRunner().invoke(app, f"plan {tmp_path}/net.onnx --calib {tmp_path}/data.npz".split())
    assert refused.exit_code == 2 and "its layers lie inside of If, which input rate chooses" in refused.output
    (tmp_path / "recipe.toml").write_text("[network]\nconstant = { rate = 3 }\n")
    said = run("plan {tmp}/net.onnx --calib {tmp}/data.npz --recipe {tmp}/recipe.toml", tmp_path)
    assert "input rate counts as 3 whatever it is fed" in said
    before, after = go_through(tmp_path, f"--recipe {tmp_path}/recipe.toml")
    assert after.inputs == before.inputs, "the interface is kept"
    for x, y in zip(calls(before), calls(after), strict=True):
        assert np.abs(x["output"] - y["output"]).max() < 0.05


def test_a_scalar_input_may_differ_from_sample_to_sample(tmp_path: Path) -> None:
    onnx.save(streaming(), tmp_path / "net.onnx")
    state = np.random.default_rng(0).normal(size=(24, 2, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", frame=frames(24), state=state, rate=np.arange(24) % 3 + 1)
    go_through(tmp_path)


# ---- the shared cases -----------------------------------------------------------------------


@pytest.mark.skipif(CASES is None, reason="the shared cases are not beside this checkout")
@pytest.mark.parametrize(
    "case",
    [
        "concat-unknown-rank", "float16", "opset7-ir3", "resize-sizes", "resize-sizes-linear", "scalar-input", "unet",
        "view-batch", "weight-is-output",
    ],
)  # fmt: skip
def test_the_shared_cases_go_through(case: str, tmp_path: Path) -> None:
    assert CASES is not None
    (tmp_path / "net.onnx").symlink_to(CASES / f"{case}.onnx")
    (tmp_path / "data.npz").symlink_to(CASES / ("scalar-input.npz" if case == "scalar-input" else "images-16.npz"))
    before, after = go_through(tmp_path)
    count = 1 if case.startswith("resize") else 3
    feeds: dict[str, Any] = {"x": images(count, 7, np.float16 if case == "float16" else np.float32)}
    if case == "scalar-input":
        feeds["sr"] = np.array(1, np.float32)
    near(before, after, feeds)
