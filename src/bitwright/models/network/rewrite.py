"""Operators that have no integer kernel, written as operators that have one; the function stays the same.

- BatchNormalization that follows no layer (pre-activation networks, DenseNet): a depthwise 1 x 1 convolution, whose one
  weight per channel int8 holds exactly.
- HardSigmoid and HardSwish (MobileNetV3): clip(alpha x + beta, 0, 1), a depthwise convolution and a Clip, times x.
- ReduceMean over all of space: GlobalAveragePool.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from bitwright.files.layers import attribute

Vector = npt.NDArray[np.float64]


class _Rewriter:
    """The nodes of a graph, rewritten one by one."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.stored = {tensor.name: tensor for tensor in self.graph.initializer}
        values = [*self.graph.value_info, *self.graph.input, *self.graph.output]
        self.shapes = {value.name: value for value in values}

    def shape(self, name: str) -> list[int | None] | None:
        """The shape of float32 tensor `name` (None for a dynamic dimension); None where type or rank is another."""
        value = self.shapes.get(name)
        if value is None or value.type.tensor_type.elem_type != TensorProto.FLOAT:
            return None
        if not value.type.tensor_type.HasField("shape"):
            return None
        return [int(d.dim_value) if d.dim_value > 0 else None for d in value.type.tensor_type.shape.dim]

    def constant(self, name: str, value: npt.ArrayLike, dtype: type = np.float32) -> str:
        """Store `value` as a new initializer."""
        while name in self.stored:
            name += "_"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        self.stored[name] = self.graph.initializer[-1]
        return name

    def depthwise(self, node: onnx.NodeProto, factor: Vector, offset: Vector, rank: int, out: str) -> onnx.NodeProto:
        """factor x + offset per channel as a convolution from the first input of `node` to `out`."""
        channels = len(factor)
        w = self.constant(f"{node.name}.weight", factor.reshape(channels, 1, *[1] * (rank - 2)))
        b = self.constant(f"{node.name}.bias", offset)
        return helper.make_node("Conv", [node.input[0], w, b], [out], f"{node.name}.conv", group=channels)

    def batch_norm(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        shape = self.shape(node.input[0])
        if shape is None or len(shape) < 3 or attribute(node, "training_mode", 0) or len(node.output) > 1:
            return None
        if not all(name in self.stored for name in node.input[1:5]):
            return None
        gamma, beta, mean, variance = (
            numpy_helper.to_array(self.stored[n]).astype(np.float64) for n in node.input[1:5]
        )
        epsilon = attribute(node, "epsilon", 1e-5)
        assert isinstance(epsilon, float)
        factor = gamma / np.sqrt(variance + epsilon)
        return [self.depthwise(node, factor, beta - mean * factor, len(shape), node.output[0])]

    def hard(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        shape = self.shape(node.input[0])
        if shape is None or len(shape) < 3 or shape[1] is None:
            return None
        swish = node.op_type == "HardSwish"
        alpha, beta = (1 / 6, 0.5) if swish else (attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5))
        line, cut = f"{node.name}.line", f"{node.name}.gate" if swish else node.output[0]
        limits = [self.constant(f"{node.name}.low", 0.0), self.constant(f"{node.name}.high", 1.0)]
        factor, offset = np.full(shape[1], alpha, np.float64), np.full(shape[1], beta, np.float64)
        nodes = [
            self.depthwise(node, factor, offset, len(shape), line),
            helper.make_node("Clip", [line, *limits], [cut], f"{node.name}.clip"),
        ]
        if swish:
            nodes.append(helper.make_node("Mul", [node.input[0], cut], list(node.output), node.name))
        return nodes

    def mean(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        shape = self.shape(node.input[0])
        axes = attribute(node, "axes", ())
        if len(node.input) > 1 and node.input[1] in self.stored:
            axes = numpy_helper.to_array(self.stored[node.input[1]]).reshape(-1)
        if shape is None or len(shape) < 3 or sorted(int(a) % len(shape) for a in axes) != list(range(2, len(shape))):  # type: ignore[attr-defined]
            return None
        if attribute(node, "keepdims", 1):
            return [helper.make_node("GlobalAveragePool", node.input[:1], list(node.output), node.name)]
        pooled = f"{node.name}.pooled"
        return [
            helper.make_node("GlobalAveragePool", node.input[:1], [pooled], node.name),
            helper.make_node("Flatten", [pooled], list(node.output), f"{node.name}.flatten"),
        ]


def rewrite(model: onnx.ModelProto) -> int:
    """Rewrite what can be, in place; how many nodes. Shapes must have been inferred before, and again after."""
    work = _Rewriter(model)
    rules: dict[str, Callable[[onnx.NodeProto], list[onnx.NodeProto] | None]] = {
        "BatchNormalization": work.batch_norm,
        "HardSigmoid": work.hard,
        "HardSwish": work.hard,
        "ReduceMean": work.mean,
    }
    if not any(node.op_type in rules for node in model.graph.node):
        return 0
    nodes, count = [], 0
    for node in model.graph.node:
        rule = rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        new = rule(node) if rule is not None else None
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        nodes += [copy] if new is None else new
        count += new is not None
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return count


def static_shape(value: onnx.ValueInfoProto) -> list[int] | None:
    """The shape of `value` where every dimension is known."""
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not all(d.HasField("dim_value") and d.dim_value > 0 for d in kind.shape.dim):
        return None
    return [int(d.dim_value) for d in kind.shape.dim]
