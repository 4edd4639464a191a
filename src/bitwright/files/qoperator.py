"""Operators that take integers themselves, as ONNX Runtime's quantizers write them: which there are, and their weights.

Inputs: https://onnx.ai/onnx/operators and ONNX Runtime's docs/ContribOperators.md (domain com.microsoft).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from bitwright.files.container import Counted
from bitwright.files.counted import count
from bitwright.files.layers import Floats, attribute


class Weight(NamedTuple):
    """Which inputs of an operator are a weight, its scale (None: it stands elsewhere in the graph) and zero point.

    `axis` is that of the weight over which several scales run; None where it is not read here.
    """

    codes: int
    scale: int | None
    zero: int
    axis: int | None


WEIGHTS = {
    "QLinearConv": (Weight(3, 4, 5, 0),),
    "QLinearMatMul": (Weight(3, 4, 5, -1),),
    "QGemm": (Weight(3, 4, 5, -1),),
    "MatMulIntegerToFloat": (Weight(1, 3, 5, -1),),
    "DynamicQuantizeMatMul": (Weight(1, 2, 3, -1),),
    "QAttention": (Weight(1, 4, 7, -1),),
    "DynamicQuantizeLSTM": (Weight(1, 8, 9, 1), Weight(2, 10, 11, 1)),
    "MatMulInteger": (Weight(1, None, 3, None),),
    "ConvInteger": (Weight(1, None, 3, None),),
}
"""Products in integers, and their weights."""


def scales(node: onnx.NodeProto) -> list[str]:
    """The names of the scales of a product's weights."""
    found = [node.input[w.scale] for w in WEIGHTS.get(node.op_type, ()) if w.scale is not None]
    return [name for name in found if name]


def counted(model: onnx.ModelProto) -> dict[str, Counted]:
    """How finely the constant weights of all products in integers are stored, by the weight's name."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, Counted] = {}
    for node in model.graph.node:
        for weight in WEIGHTS.get(node.op_type, ()):
            codes = stored.get(node.input[weight.codes])
            scale = None if weight.scale is None else stored.get(node.input[weight.scale])
            zero = stored.get(node.input[weight.zero]) if len(node.input) > weight.zero else None
            if codes is not None and (one := count(codes, scale, zero)) is not None:
                found[codes.name] = one
    return found


def decode(model: onnx.ModelProto) -> dict[str, Floats]:
    """The float32 values of the constant weights whose scales stand beside them, by the weight's name."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, Floats] = {}
    for node in model.graph.node:
        for weight in WEIGHTS.get(node.op_type, ()):
            if weight.scale is None or weight.axis is None:
                continue
            codes, scale = node.input[weight.codes], node.input[weight.scale]
            zero = node.input[weight.zero] if len(node.input) > weight.zero else ""
            if not {codes, scale, *([zero] if zero else [])} <= stored.keys():
                continue
            transposed = node.op_type == "QGemm" and attribute(node, "transB", 0)
            values = numpy_helper.to_array(stored[codes]).astype(np.float32)
            shape = [1] * values.ndim
            shape[0 if transposed else weight.axis] = -1
            if node.op_type == "DynamicQuantizeLSTM":  # turned, with scales for each direction
                values = np.ascontiguousarray(values.swapaxes(1, 2))
                shape = [values.shape[0], -1, 1]
            low = numpy_helper.to_array(stored[zero]).astype(np.float32) if zero else np.zeros(1, np.float32)
            step = numpy_helper.to_array(stored[scale]).astype(np.float32)
            found[codes] = (values - low.reshape(shape)) * step.reshape(shape)
    return found
