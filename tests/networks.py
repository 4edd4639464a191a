"""Tiny ONNX networks of every kind that the integer path must master, made with onnx.helper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parent.parent


def shared(*parts: str) -> Path | None:
    """A file or folder of the project's shared data, or None where this checkout has none beside it or in it."""
    found = [place.joinpath(*parts) for place in (ROOT.parent / "shared", ROOT / "shared")]
    return next((path for path in found if path.exists()), None)


class Net:
    """A graph in the making: `add` appends a node and returns its output, `weight` an initializer."""

    def __init__(self, seed: int = 0, opset: int = 17) -> None:
        self.rng, self.opset = np.random.default_rng(seed), opset
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[TensorProto] = []

    def weight(self, *shape: int, scale: float | None = None, shift: float = 0.0) -> str:
        """Random normal values, as small as the fan-in asks for unless `scale` says."""
        fan = int(np.prod(shape[1:])) or 1
        size = scale if scale is not None else (2 / fan) ** 0.5 if len(shape) > 1 else 0.2
        return self.value(self.rng.normal(size=shape).astype(np.float32) * np.float32(size) + np.float32(shift))

    def value(self, x: Any, dtype: Any = None) -> str:
        """`x` as an initializer."""
        name = f"c{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(np.asarray(x, dtype), name))
        return name

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Append a node; its output's name, or names where it has several."""
        number = len(self.nodes)
        names = [f"t{number}" if outputs == 1 else f"t{number}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, f"{op.lower()}{number}", **attributes))
        return names[0] if outputs == 1 else names

    def conv(self, x: str, inputs: int, outputs: int, k: int = 3, *, groups: int = 1, bias: bool = True, rank: int = 2,
             **attributes: Any) -> str:  # fmt: skip
        """A convolution that keeps the size."""
        w = self.weight(outputs, inputs // groups, *[k] * rank)
        names = [w, self.weight(outputs)] if bias else [w]
        return str(self.add("Conv", x, *names, pads=[k // 2] * 2 * rank, group=groups, **attributes))

    def norm(self, x: str, channels: int) -> str:
        """Batch norm in inference."""
        c = channels
        variance = self.value(self.rng.uniform(0.5, 2, c).astype(np.float32))
        return str(self.add("BatchNormalization", x, self.weight(c, shift=1), self.weight(c), self.weight(c), variance))

    def model(
        self, inputs: dict[str, list[Any]], outputs: list[str], shape: list[Any] | None = None
    ) -> onnx.ModelProto:
        """The checked model; `shape` is that of its outputs, where it cannot be inferred."""
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs],
            self.stored,
        )
        ir = 13 if self.opset > 24 else 11 if self.opset > 22 else 10 if self.opset > 20 else 8
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=ir)
        onnx.checker.check_model(onnx.shape_inference.infer_shapes(model))
        return model


IMAGE: dict[str, list[Any]] = {"x": ["batch", 3, 16, 16]}


def conv_bn_relu() -> onnx.ModelProto:
    """Convolution, batch norm, Relu, twice; pooling; Gemm."""
    n = Net()
    x = n.add("Relu", n.norm(n.conv("x", 3, 8, bias=False), 8))
    x = n.add("Relu", n.norm(n.conv(x, 8, 16, strides=[2, 2]), 16))
    x = n.add("Flatten", n.add("GlobalAveragePool", x))
    return n.model(IMAGE, [n.add("Gemm", x, n.weight(10, 16), n.weight(10), transB=1)])


def mobile() -> onnx.ModelProto:
    """An inverted residual of MobileNetV2: Clip(0, 6), depthwise, a sum without activation."""
    n = Net()
    zero, six = n.value(0.0, np.float32), n.value(6.0, np.float32)
    a = n.add("Clip", n.norm(n.conv("x", 3, 8), 8), zero, six)
    b = n.add("Clip", n.conv(a, 8, 24, 1), zero, six)
    b = n.add("Clip", n.norm(n.conv(b, 24, 24, groups=24, bias=False), 24), zero, six)
    b = n.conv(b, 24, 8, 1)
    x = n.add("GlobalAveragePool", n.conv(n.add("Add", a, b), 8, 8, 1))
    x = n.add("Reshape", x, n.value([-1, 8], np.int64))
    return n.model(IMAGE, [n.add("Gemm", x, n.weight(8, 5), n.weight(1, 5), alpha=0.5, beta=2.0)])


def residual() -> onnx.ModelProto:
    """Residual sums with Relu, a padded shortcut as in ResNet-20, maximum and average pooling."""
    n = Net()
    x = n.add("Relu", n.conv("x", 3, 8))
    x = n.add("Relu", n.add("Add", n.conv(n.add("Relu", n.conv(x, 8, 8)), 8, 8), x))
    x = n.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    y = n.conv(n.add("Relu", n.conv(x, 8, 16, strides=[2, 2])), 16, 16)
    index = [n.value(v, np.int64) for v in ([0, 0], [2**63 - 1] * 2, [2, 3], [2, 2])]
    short = n.add("Pad", n.add("Slice", x, *index), n.value([0, 4, 0, 0, 0, 4, 0, 0], np.int64))
    x = n.add("Relu", n.add("Add", y, short))
    x = n.add("Flatten", n.add("AveragePool", x, kernel_shape=[4, 4]))
    return n.model(IMAGE, [n.add("Gemm", x, n.weight(10, 16), n.weight(10), transB=1)])


def dense() -> onnx.ModelProto:
    """Concatenations of channels, LeakyRelu, SiLU, a channel gate."""
    n = Net()
    a = n.add("LeakyRelu", n.conv("x", 3, 8), alpha=0.1)
    c = n.conv(a, 8, 8)
    b = n.add("Mul", c, n.add("Sigmoid", c))
    x = n.add("Relu", n.conv(n.add("Concat", a, b, axis=1), 16, 16))
    g = n.add("Relu", n.conv(n.add("GlobalAveragePool", x), 16, 4, 1))
    x = n.add("Mul", x, n.add("Sigmoid", n.conv(g, 4, 16, 1)))
    x = n.add("Relu", n.conv(x, 16, 8))
    x = n.add("Reshape", n.add("MaxPool", x, kernel_shape=[4, 4], strides=[4, 4]), n.value([0, -1], np.int64))
    return n.model(IMAGE, [n.add("Softmax", n.add("Gemm", x, n.weight(10, 128), n.weight(10), transB=1), axis=1)])


def mlp() -> onnx.ModelProto:
    """Gemm both ways round, MatMul with and without a bias."""
    n = Net()
    x = n.add("Relu", n.add("Gemm", "x", n.weight(24, 12), n.weight(24), transB=1))
    x = n.add("Relu", n.add("Gemm", x, n.weight(24, 32), n.weight(32)))
    x = n.add("Relu", n.add("Add", n.add("MatMul", x, n.weight(32, 16)), n.weight(16)))
    return n.model({"x": ["batch", 12]}, [n.add("MatMul", x, n.weight(16, 4))])


def tokens(batch: int | str = 2) -> onnx.ModelProto:
    """MatMul on sequences of known length, with a bias that a runtime likes to fuse; activations before the output."""
    n = Net()
    x = n.add("Relu", n.add("Add", n.add("MatMul", "x", n.weight(16, 32)), n.weight(32)))
    x = n.add("Tanh", n.add("Add", n.add("MatMul", x, n.weight(32, 16)), n.weight(16)))
    y = n.add("Flatten", n.add("Relu", n.add("MatMul", x, n.weight(16, 8))))
    z = n.add("Clip", n.add("Gemm", y, n.weight(6, 48), n.weight(6), transB=1), n.value(-1.0, np.float32),
              n.value(1.0, np.float32))  # fmt: skip
    z = n.add("Sigmoid", n.add("Gemm", n.add("Abs", z), n.weight(6, 6), n.weight(6)))
    return n.model({"x": [batch, 6, 16]}, [z, n.add("Relu", n.add("Gemm", z, n.weight(6, 6)))])


def upsample() -> onnx.ModelProto:
    """ConvTranspose (plain and grouped) after convolutions: no integer kernel on CPUs."""
    n = Net()
    x = n.add("Relu", n.conv("x", 3, 8, strides=[2, 2]))
    x = n.add("ConvTranspose", x, n.weight(8, 6, 2, 2), n.weight(6), strides=[2, 2])
    x = n.add("Relu", n.norm(x, 6))
    x = n.add("ConvTranspose", x, n.weight(6, 2, 3, 3), n.weight(4), group=2, pads=[1, 1, 1, 1])
    return n.model(IMAGE, [n.conv(n.add("Relu", x), 4, 2)])


def speech() -> onnx.ModelProto:
    """1-D convolutions over a waveform, as speech networks begin."""
    n = Net()
    x = n.add("Relu", n.norm(n.conv("x", 1, 8, 9, rank=1, strides=[4]), 8))
    x = n.add("Relu", n.conv(x, 8, 8, 3, rank=1, groups=8))
    x = n.add("MaxPool", n.add("Relu", n.conv(x, 8, 12, 1, rank=1)), kernel_shape=[2], strides=[2])
    x = n.add("Squeeze", n.add("GlobalAveragePool", x), n.value([2], np.int64))
    return n.model({"x": ["batch", 1, 400]}, [n.add("Gemm", x, n.weight(10, 12), n.weight(10), transB=1)])


def transformer(opset: int = 20) -> onnx.ModelProto:
    """One encoder block: LayerNormalization, attention by MatMul and Softmax, Gelu."""
    n, d = Net(opset=opset), 16

    def linear(x: str, inputs: int, outputs: int) -> str:
        return str(n.add("Add", n.weight(outputs), n.add("MatMul", x, n.weight(inputs, outputs, scale=inputs**-0.5))))

    def heads(x: str, *perm: int) -> str:
        return str(n.add("Transpose", n.add("Reshape", x, n.value([0, 0, 2, d // 2], np.int64)), perm=perm))

    h = n.add("LayerNormalization", "x", n.weight(d, shift=1), n.weight(d))
    q, k, v = (linear(h, d, d) for _ in range(3))
    scores = n.add("MatMul", heads(q, 0, 2, 1, 3), heads(k, 0, 2, 3, 1))
    weights = n.add("Softmax", n.add("Mul", scores, n.value(8**-0.5, np.float32)), axis=-1)
    mixed = n.add("Transpose", n.add("MatMul", weights, heads(v, 0, 2, 1, 3)), perm=[0, 2, 1, 3])
    x = n.add("Add", "x", linear(n.add("Reshape", mixed, n.value([0, 0, d], np.int64)), d, d))
    h = n.add("LayerNormalization", x, n.weight(d, shift=1), n.weight(d))
    x = n.add("Add", linear(n.add("Gelu", linear(h, d, 4 * d)), 4 * d, d), x)
    return n.model({"x": ["batch", 6, d]}, [x])


def recurrent() -> onnx.ModelProto:
    """An LSTM, which has no integer kernel, between layers that have one."""
    n = Net()
    x = n.add("Transpose", n.add("Relu", n.conv("x", 4, 8, 3, rank=1)), perm=[2, 0, 1])
    y, _, _ = n.add("LSTM", x, n.weight(1, 24, 8), n.weight(1, 24, 6), n.weight(1, 48), hidden_size=6, outputs=3)
    y = n.add("Squeeze", y, n.value([1], np.int64))
    y = n.add("Transpose", y, perm=[1, 0, 2])
    return n.model({"x": ["batch", 4, 12]}, [n.add("MatMul", y, n.weight(6, 5))])


def detector() -> onnx.ModelProto:
    """A detector's neck and heads: Split, Resize, Concat of scales, two outputs straight from convolutions."""
    n = Net()
    a = n.add("Relu", n.conv("x", 3, 8))
    b = n.add("Relu", n.conv(a, 8, 8, strides=[2, 2]))
    left, right = n.add("Split", b, n.value([4, 4], np.int64), axis=1, outputs=2)
    b = n.add("Concat", n.add("Relu", n.conv(left, 4, 4)), right, axis=1)
    scales = n.value([1, 1, 2, 2], np.float32)
    up = n.add(
        "Resize", b, "", scales, mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"
    )
    c = n.add("Relu", n.conv(n.add("Concat", a, up, axis=1), 16, 8))
    boxes = n.add("Reshape", n.add("Transpose", n.conv(c, 8, 4, 1), perm=[0, 2, 3, 1]), n.value([0, -1, 4], np.int64))
    return n.model(IMAGE, [boxes, n.add("Sigmoid", n.conv(c, 8, 3, 1))])


def branches() -> onnx.ModelProto:
    """A tensor before its activation that a second reader needs, a Pad by reflection, a Relu that no layer precedes."""
    n = Net()
    c = n.conv("x", 3, 8)
    y = n.add("Add", n.add("Relu", c), c)
    y = n.add("Pad", y, n.value([0, 0, 1, 1, 0, 0, 1, 1], np.int64), mode="reflect")
    y = n.add("Conv", n.add("Relu", n.add("MaxPool", y, kernel_shape=[2, 2])), n.weight(4, 8, 3, 3))
    return n.model(IMAGE, [n.add("Tanh", y)])


def preactivated() -> onnx.ModelProto:
    """Batch norms that follow no layer, HardSwish and HardSigmoid, the mean over space."""
    n = Net()
    x = n.conv("x", 3, 8)
    x = n.add("Concat", x, n.conv(n.add("Relu", n.norm(x, 8)), 8, 8), axis=1)
    x = n.add("HardSwish", n.conv(n.add("Relu", n.norm(x, 16)), 16, 8))
    gate = n.add("HardSigmoid", n.conv(n.add("ReduceMean", x, axes=[2, 3]), 8, 8, 1), alpha=1 / 6)
    x = n.conv(n.add("Mul", x, gate), 8, 8)
    return n.model(IMAGE, [n.add("MatMul", n.add("ReduceMean", x, axes=[-1, -2], keepdims=0), n.weight(8, 5))])


def moving() -> onnx.ModelProto:
    """Operators that move or choose values, and names that the writer would like to use itself."""
    n = Net()
    x = n.add("Relu", n.conv("x", 3, 8))
    x = n.add("Resize", x, "", n.value([1, 1, 2, 2], np.float32), mode="linear")
    x = n.conv(n.add("Tile", n.conv(x, 8, 2), n.value([1, 2, 1, 1], np.int64)), 4, 4)
    n.nodes.append(helper.make_node("ReduceMax", [x], ["x_quantized"], "max", axes=[2, 3], keepdims=0))
    x = n.add("Gather", "x_quantized", n.value([0, 2], np.int64), axis=1)
    x = n.add(
        "Concat", n.add("Unsqueeze", x, n.value([2], np.int64)), n.add("Unsqueeze", x, n.value([2], np.int64)), axis=1
    )
    n.nodes.append(helper.make_node("Gemm", [n.add("Squeeze", x, n.value([2], np.int64)), n.weight(4, 5)], ["x_scale"]))
    return n.model(IMAGE, ["x_scale"])


KINDS: dict[str, Callable[[], onnx.ModelProto]] = {
    kind.__name__: kind
    for kind in (
        conv_bn_relu, mobile, residual, dense, mlp, tokens, upsample, speech, transformer, recurrent, detector,
        branches, preactivated, moving,
    )
}  # fmt: skip


def feeds(model: onnx.ModelProto, batch: int = 4, seed: int = 1) -> dict[str, Any]:
    """Random normal inputs for `model`."""
    rng = np.random.default_rng(seed)
    shapes = {v.name: [d.dim_value or batch for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
