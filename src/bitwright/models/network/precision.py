"""Networks in another precision than float32: computed in float32 between casts, so that they can be quantized."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bitwright.errors import TensorError
from bitwright.files.layers import PRODUCTS
from bitwright.models.network.names import graphs, rename, taken, unused

NAMES: dict[int, str] = {
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.DOUBLE: "float64",
}
TYPES = ("to", "dtype", "output_datatype", "stash_type")
"""Attributes that hold the number of a tensor's type."""


def to_float32(model: onnx.ModelProto, where: str) -> list[str]:
    """Let `model` compute in float32 what it computes in float16, bfloat16 or float64; a note for each.

    Inputs and outputs keep their types, behind Cast. A precision in which no product has a constant weight is left
    alone: it serves other things. Raises TensorError for a float64 weight that float32 cannot hold.
    """
    kinds = _kinds(model.graph)
    for kind in kinds:
        _convert(model.graph, kind, where)
        _cast(model.graph, kind)
    if kinds:
        del model.graph.value_info[:]
    told = "read as float32, which whatever stays float is stored in; inputs and outputs keep their type"
    return [f"{NAMES[kind]} network: {told}" for kind in kinds]


def _kinds(graph: onnx.GraphProto) -> list[int]:
    """The other precisions in which products of `graph` and its subgraphs have their weights."""
    found: set[int] = set()
    stored: dict[str, int] = {}
    for inner in graphs(graph):
        stored |= {tensor.name: tensor.data_type for tensor in inner.initializer}
        for node in inner.node:
            value = next((a.t for a in node.attribute if a.name == "value"), None)
            if node.op_type == "Constant" and value is not None:
                stored[node.output[0]] = value.data_type
    for inner in graphs(graph):
        for node in inner.node:
            if node.op_type in PRODUCTS and len(node.input) > 1:
                found.add(stored.get(node.input[1], 0))
    return sorted(found & NAMES.keys())


def _convert(graph: onnx.GraphProto, kind: int, where: str) -> None:
    """Every tensor and every statement of type `kind` becomes float32, besides inputs and outputs of the network."""
    for inner in graphs(graph):
        for tensor in inner.initializer:
            _widen(tensor, kind, where)
        values = [*inner.value_info, *([] if inner is graph else [*inner.input, *inner.output])]
        for value in values:
            if value.type.tensor_type.elem_type == kind:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        for node in inner.node:
            for a in node.attribute:
                for tensor in [a.t] if a.HasField("t") else a.tensors:
                    _widen(tensor, kind, where)
                if a.name in TYPES and a.type == onnx.AttributeProto.INT and a.i == kind:
                    a.i = TensorProto.FLOAT


def _widen(tensor: TensorProto, kind: int, where: str) -> None:
    if tensor.data_type != kind:
        return
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        found = values.astype(np.float32)
    if (np.isinf(found) & np.isfinite(values.astype(np.float64))).any():
        raise TensorError("it has numbers beyond float32", where=f"{where}: {tensor.name or 'constant'}",
                          fix="Export the network in float32")  # fmt: skip
    tensor.CopyFrom(numpy_helper.from_array(found, tensor.name))


def _cast(graph: onnx.GraphProto, kind: int) -> None:
    """Casts behind the inputs of type `kind` and before such outputs; the network's own nodes see float32."""
    before, after, names = [], [], taken(graph)
    stored = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.type.tensor_type.elem_type != kind:
            continue
        if value.name in stored:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            continue
        new = unused(f"{value.name}_float32", names)
        rename(graph, {value.name: new})
        before.append(helper.make_node("Cast", [value.name], [new], f"{value.name}_to_float32", to=TensorProto.FLOAT))
    for value in graph.output:
        if value.type.tensor_type.elem_type != kind:
            continue
        new = unused(f"{value.name}_float32", names)
        rename(graph, {value.name: new})
        after.append(helper.make_node("Cast", [new], [value.name], f"{value.name}_from_float32", to=kind))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    graph.node.extend([*before, *nodes, *after])
