"""Graphs of real little networks, prepared, changed and placed; ONNX Runtime says whether the function is the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitwright.errors import ModelError, RecipeError, TensorError
from bitwright.files.layers import to_matrix
from bitwright.files.onnx import read
from bitwright.models.network.graph import Graph
from bitwright.models.network.placement import place
from bitwright.models.network.session import Session
from bitwright.models.network.streams import find_streams
from tests import networks
from tests.networks import KINDS, Net


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return list(Session(model, threads=1, optimize=False).run(feeds).values())


def close(a: list[np.ndarray], b: list[np.ndarray], tolerance: float = 2e-5) -> None:
    for x, y in zip(a, b, strict=True):
        assert np.abs(x - y).max() <= tolerance * max(1, np.abs(x).max())


@pytest.mark.parametrize("kind", KINDS)
def test_preparing_keeps_the_function(kind: str) -> None:
    model = KINDS[kind]()
    feeds = networks.feeds(model)
    before = run(model, feeds)
    graph = Graph(model)
    close(before, run(graph.model, feeds))
    onnx.checker.check_model(graph.model, full_check=True)
    names = [node.name for node in graph.model.graph.node]
    assert all(names) and len(set(names)) == len(names)
    assert not {"Identity", "BatchNormalization", "Constant"} & {node.op_type for node in graph.model.graph.node}


@pytest.mark.parametrize("kind", KINDS)
def test_streams_scale_without_changing_the_function(kind: str) -> None:
    model = KINDS[kind]()
    feeds = networks.feeds(model)
    before = run(model, feeds)
    graph = Graph(model)
    rng = np.random.default_rng(3)
    changed = 0
    for stream in find_streams(graph):
        outputs = {name: run(graph.with_outputs([name]), feeds)[-1] for name in stream.tensors}
        factors = np.exp(rng.normal(size=stream.size))
        graph.apply(stream, factors)
        for name, (axis, index) in stream.tensors.items():
            shape = [-1 if i == axis else 1 for i in range(outputs[name].ndim)]
            after = run(graph.with_outputs([name]), feeds)[-1]
            close([outputs[name] * factors[index].reshape(shape)], [after], 1e-4)
        changed += 1
    close(before, run(graph.model, feeds), 1e-4)
    assert changed >= {"recurrent": 0, "branches": 0, "moving": 0}.get(kind, 1)


def test_streams_of_residuals_and_gates() -> None:
    graph = Graph(KINDS["residual"]())
    stream = find_streams(graph)[0]
    # The padded shortcut joins 8 channels of the first stage with the middle ones of 16.
    assert stream.size == 16
    assert [layer.name for layer, _ in stream.producers] == ["conv0", "conv4", "conv10"]
    first, last = stream.producers[0][1], stream.producers[-1][1]
    assert (last[4:12] == first).all()
    norms = find_streams(Graph(KINDS["transformer"]()))
    assert [stream.producers[0][0].op for stream in norms] == ["LayerNormalization"] * 2
    assert len(norms[0].consumers) == 3, "query, key and value read one norm"


def test_layers_matrices_and_biases() -> None:
    for kind in KINDS:
        graph = Graph(KINDS[kind]())
        feeds = networks.feeds(graph.model)
        before = run(graph.model, feeds)
        for layer in list(graph.layers):
            layer = graph.layer(layer.name)
            w, b = graph.matrix(layer), graph.bias(layer)
            assert w.shape[0] == layer.outputs == len(b) and w.dtype == np.float32
            graph.set_matrix(layer, w * 1.0)
            graph.set_bias(layer, b)
            assert (graph.matrix(graph.layer(layer.name)) == w).all()
        assert all(layer.bias is not None for layer in graph.layers)
        close(before, run(graph.model, feeds))


@pytest.mark.parametrize("kind", ["mobile", "mlp", "upsample", "speech"])
def test_a_new_weight_and_bias_reach_the_output_as_the_matrix_says(kind: str) -> None:
    """The output of a layer is matrix @ unfolded input + bias: checked on the change a new bias and row scale make."""
    graph = Graph(KINDS[kind]())
    feeds = networks.feeds(graph.model)
    for layer in list(graph.layers):
        layer = graph.layer(layer.name)
        raw = run(graph.with_outputs([layer.raw]), feeds)[-1]
        factor, shift = np.linspace(0.5, 2, layer.outputs), np.linspace(-1, 1, layer.outputs)
        graph.set_matrix(layer, graph.matrix(layer) * factor[:, None])
        graph.set_bias(layer, graph.bias(layer) * factor + shift)
        layer = graph.layer(layer.name)
        shape = [-1 if i == 1 else 1 for i in range(raw.ndim)]
        close([raw * factor.reshape(shape) + shift.reshape(shape)], [run(graph.with_outputs([layer.raw]), feeds)[-1]])


def test_set_refuses_what_is_not_finite() -> None:
    graph = Graph(KINDS["mlp"]())
    layer = graph.layers[0]
    with pytest.raises(TensorError, match="not finite"):
        graph.set_matrix(layer, np.full((24, 12), np.nan))
    with pytest.raises(ModelError, match="no layer nowhere"):
        graph.layer("nowhere")
    with pytest.raises(ModelError, match="no tensor 'nowhere'"):
        graph.with_outputs(["nowhere"])
    with pytest.raises(TensorError, match="positive factors"):
        graph.apply(find_streams(graph)[0], np.zeros(24))


def test_shared_weight_and_bias() -> None:
    n = Net()
    w, b = n.weight(6, 6), n.weight(6)
    x = n.add("Gemm", n.add("Gemm", "x", w, b), w, b)
    graph = Graph(n.model({"x": ["batch", 6]}, [x]))
    first, second = graph.layers
    graph.set_bias(second, np.ones(6))
    first, second = graph.layers
    assert first.bias == b and second.bias != b and (graph.bias(first) != 1).all()
    assert not find_streams(graph)


def test_depthwise_from_batch_norm_is_a_layer() -> None:
    graph = Graph(KINDS["preactivated"]())
    ops = Counter(node.op_type for node in graph.model.graph.node)
    assert ops["GlobalAveragePool"] == 2 and not ops["ReduceMean"] and not ops["HardSwish"]
    assert sum(layer.groups > 1 for layer in graph.layers) == 3
    assert graph.notes == [
        "1 operation with constants folded into layers",
        "5 operators written as depthwise convolutions or pooling",
    ]


def test_values_and_facts() -> None:
    graph = Graph(KINDS["residual"]())
    assert graph.inputs == {"x": ("float32", (None, 3, 16, 16))}
    assert graph.outputs == {"t17": ("float32", (None, 10))}
    layer = graph.layers[0]
    assert (layer.op, layer.input, layer.activation, layer.kernel, layer.pads) == (
        "Conv",
        "x",
        "Relu",
        (3, 3),
        (1,) * 4,
    )
    assert layer.nodes == ("conv0", "relu1") and layer.raw == "t0" and layer.output == "t1"
    assert to_matrix(layer, graph.constant(layer.weight)).shape == (8, 27)


def dynamic() -> onnx.ModelProto:
    n = Net()
    x = n.add("GlobalAveragePool", n.conv("x", 3, 4))
    return n.model({"x": ["batch", 3, "height", "width"]}, [x])


def test_dynamic_shapes_need_a_word() -> None:
    with pytest.raises(ModelError, match=r"input x has a dynamic dimension 'height'.*--bind height=SIZE"):
        Graph(dynamic())
    with pytest.raises(ModelError, match=r"no dynamic dimension is called 'depth'.*height"):
        Graph(dynamic(), bind={"depth": 3, "height": 2, "width": 2})
    fixed = Graph(dynamic(), bind={"batch": 1, "height": 8, "x.3": 6})
    assert fixed.inputs["x"][1] == (1, 3, 8, 6)
    open_ = Graph(dynamic(), bind={"height": None, "width": None})
    assert open_.inputs["x"][1] == (None, 3, None, None)


def test_constants_fold_so_that_pads_are_known() -> None:
    path = networks.shared("models", "resnet20-cifar10", "model.onnx")
    if path is None:
        pytest.skip("no shared/models/resnet20-cifar10 beside this checkout")
    source = read(path)
    graph = Graph.open(path)
    ops = Counter(node.op_type for node in graph.model.graph.node)
    assert ops == {"Conv": 19, "Relu": 19, "Add": 9, "Slice": 4, "Pad": 2, "AveragePool": 1, "Flatten": 1, "Gemm": 1}
    feeds = networks.feeds(source, 2)
    close(run(source, feeds), run(graph.model, feeds), 0)
    assert len(find_streams(graph)[0].producers) == 10, "one residual stream runs through all three stages"


def test_subgraphs_are_left_alone() -> None:
    n = Net()
    x = n.add("Relu", n.conv("x", 3, 4))
    same = n.add("Identity", x)
    branches = []
    for op in ("Neg", "Identity"):
        node = helper.make_node(op, [same], [f"{op}_out"], f"inner_{op}")
        value = helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, None)
        branches.append(helper.make_graph([node], op, [], [value]))
    y = n.add("If", n.value(True), then_branch=branches[0], else_branch=branches[1])
    model = n.model({"x": ["batch", 3, 8, 8]}, [n.conv(y, 4, 2)])
    feeds = networks.feeds(model)
    before = run(model, feeds)
    graph = Graph(model)
    close(before, run(graph.model, feeds))
    assert "ONNX Runtime has no integer If" in place(graph).floats.values()
    assert not find_streams(graph)


def test_half_precision_is_read_as_float32_and_says_so() -> None:
    n = Net()
    n.stored = [numpy_helper.from_array(np.ones((4, 3), np.float16), "w")]
    n.nodes = [helper.make_node("Cast", ["x"], ["h"], "down", to=TensorProto.FLOAT16),
               helper.make_node("Gemm", ["h", "w"], ["g"], "gemm", transB=1),
               helper.make_node("Cast", ["g"], ["y"], "up", to=TensorProto.FLOAT)]  # fmt: skip
    graph = Graph(n.model({"x": ["batch", 3]}, ["y"]))
    assert [node.op_type for node in graph.model.graph.node] == ["Gemm", "Cast"]
    assert [layer.name for layer in graph.layers] == ["gemm"]
    assert graph.notes[0].startswith("float16 network: read as float32")
    x = np.float32([[1, 2, 3]])
    assert Session(graph.model).run({"x": x})["y"].tolist() == [[6, 6, 6, 6]]


def test_placement_of_each_kind() -> None:
    """What stays float, and why, is known before anything is written."""
    reasons = {kind: place(Graph(KINDS[kind]())).floats for kind in KINDS}
    for kind in ("conv_bn_relu", "mobile", "residual", "speech", "preactivated", "recurrent"):
        assert not reasons[kind], kind
    assert reasons["upsample"]["convtranspose2"] == "ONNX Runtime has no integer ConvTranspose on CPUs"
    assert reasons["transformer"]["gelu25"] == "ONNX Runtime has no integer Gelu"
    assert reasons["transformer"]["matmul11"] == "product of two activations, kept float"
    detector = place(Graph(KINDS["detector"]()))
    assert detector.rounded == ("t14",)
    assert set(detector.shared[0]) == {"t3", "t4_0", "t4_1"}


def test_keeping_layers_float() -> None:
    graph = Graph(KINDS["residual"]())
    assert "conv2" in place(graph).nodes
    kept = place(graph, keep=["conv2"])
    assert kept.floats["conv2"] == "kept float on request" and "conv2" not in kept.nodes and "conv4" in kept.nodes
    with pytest.raises(RecipeError, match="no node is called 'nothing'"):
        place(graph, keep=["nothing"])
    with pytest.raises(RecipeError, match="no target is called 'tpu'"):
        place(graph, "tpu")  # type: ignore[arg-type]


def test_attention_and_gpu_targets() -> None:
    graph = Graph(KINDS["transformer"]())
    assert {"matmul11", "matmul16"} <= place(graph, attention=True).nodes
    gpu = place(Graph(KINDS["upsample"]()), "gpu")
    assert {"conv0", "convtranspose2", "convtranspose5", "conv7"} <= gpu.nodes and len(gpu.activations) == 4


def test_a_branch_that_follows_from_known_sizes_is_taken() -> None:
    """As torch.jit exports x.squeeze() and nn.LSTM: an If on the rank, or on one size where others stay open."""
    n = Net()
    size = n.add("Gather", n.add("Shape", n.conv("x", 3, 8)), n.value([1], np.int64), axis=0)
    rank = n.add("Size", n.add("Shape", "x"))
    eight = n.add("Reshape", n.add("Shape", n.value(np.zeros(8, np.float32))), n.value([1], np.int64))
    both = n.add("And", n.add("Equal", size, eight), n.add("Equal", rank, n.value(4, np.int64)))
    ends = [helper.make_tensor_value_info("a", TensorProto.FLOAT, None)]
    nodes = [helper.make_node("Conv", ["x", n.weight(4, 3, 1, 1)], ["a"], "inside"),
             helper.make_node("Identity", ["x"], ["a"], "outside")]  # fmt: skip
    yes, no = (helper.make_graph([node], node.name, [], ends) for node in nodes)
    condition = n.add("Squeeze", both)
    n.nodes.append(helper.make_node("If", [condition], ["y"], "either", then_branch=yes, else_branch=no))
    graph = Graph(n.model(networks.IMAGE, ["y"]))
    assert [(layer.op, layer.shape) for layer in graph.layers] == [("Conv", (4, 3, 1, 1))]
    assert [node.op_type for node in graph.model.graph.node] == ["Conv"]


def test_the_size_of_an_open_batch_is_not_taken_for_known() -> None:
    n = Net()
    first = n.add("Gather", n.add("Shape", "x"), n.value(0, np.int64), axis=0)
    last = n.add("Gather", n.add("Shape", "x", start=-2), n.value(-1, np.int64), axis=0)
    model = n.model(networks.IMAGE, [n.add("Cast", n.add("Add", first, last), to=TensorProto.FLOAT)], [])
    graph = Graph(model)
    assert float(run(graph.model, {"x": np.zeros((5, 3, 16, 16), np.float32)})[0]) == 21
    assert [node.op_type for node in graph.model.graph.node] == ["Shape", "Gather", "Add", "Cast"]
