"""Operators that have no integer kernel, written as operators that have one; the function stays the same.

- PRelu of slopes s <= 1: x + relu((s - 1) x), and otherwise x + (1 - s) relu(-x): depthwise convolutions and a sum.
- ReduceMean over all of space: GlobalAveragePool.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bitwright.files.layers import attribute
from bitwright.models.network.store import Store


class _Rewriter:
    """The nodes of a graph, rewritten one by one."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.store = Store(graph)

    def prelu(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        data, slope, out = node.input[0], node.input[1], node.output[0]
        shape, name = self.store.shape(data), node.name
        if shape is None or slope not in self.store.stored:
            return None
        s = self.store.value(slope)
        if (s == s.flat[0]).all() and s.ndim <= len(shape):
            alpha = float(s.flat[0])
            return [helper.make_node("LeakyRelu", [data], [out], name, alpha=alpha)]
        channels = shape[1] if len(shape) > 2 else None
        if channels is None or ((1,) * (len(shape) - s.ndim) + s.shape)[1:] != (channels,) + (1,) * (len(shape) - 2):
            return None
        s, zero = s.reshape(-1), np.zeros(channels)
        line, cut = (self.store.tensor(f"{name}.{part}", data) for part in ("line", "negative"))
        if (s <= 1).all():
            return [
                self.store.depthwise(name, data, s - 1, zero, line),
                helper.make_node("Relu", [line], [cut], f"{name}.relu"),
                helper.make_node("Add", [data, cut], [out], name),
            ]
        scaled = self.store.tensor(f"{name}.scaled", data)
        return [
            self.store.depthwise(f"{name}.minus", data, np.full(channels, -1.0), zero, line),
            helper.make_node("Relu", [line], [cut], f"{name}.relu"),
            self.store.depthwise(name, cut, 1 - s, zero, scaled),
            helper.make_node("Add", [data, scaled], [out], name),
        ]

    def mean(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        shape = self.store.shape(node.input[0])
        axes = attribute(node, "axes", ())
        if len(node.input) > 1 and node.input[1] in self.store.stored:
            axes = numpy_helper.to_array(self.store.stored[node.input[1]]).reshape(-1)
        if shape is None or len(shape) < 3 or sorted(int(a) % len(shape) for a in axes) != list(range(2, len(shape))):  # type: ignore[attr-defined]
            return None
        if attribute(node, "keepdims", 1):
            return [helper.make_node("GlobalAveragePool", node.input[:1], list(node.output), node.name)]
        pooled = f"{node.name}.pooled"
        return [
            helper.make_node("GlobalAveragePool", node.input[:1], [pooled], node.name),
            helper.make_node("Flatten", [pooled], list(node.output), f"{node.name}.flatten"),
        ]


def rewrite(graph: onnx.GraphProto) -> int:
    """Rewrite what can be, in place; how many nodes. Shapes must have been inferred before, and again after."""
    work = _Rewriter(graph)
    rules: dict[str, Callable[[onnx.NodeProto], list[onnx.NodeProto] | None]] = {
        "PRelu": work.prelu,
        "ReduceMean": work.mean,
    }
    if not any(node.op_type in rules for node in graph.node):
        return 0
    nodes, count = [], 0
    for node in graph.node:
        rule = rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        new = rule(node) if rule is not None else None
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        nodes += [copy] if new is None else new
        count += new is not None
    del graph.node[:]
    graph.node.extend(nodes)
    return count


def static_shape(value: onnx.ValueInfoProto) -> list[int] | None:
    """The shape of `value` where every dimension is known."""
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not all(d.HasField("dim_value") and d.dim_value > 0 for d in kind.shape.dim):
        return None
    return [int(d.dim_value) for d in kind.shape.dim]
