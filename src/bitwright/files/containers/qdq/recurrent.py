"""How LSTM, GRU and RNN are written with quantized matrices.

An LSTM becomes com.microsoft.DynamicQuantizeLSTM where ONNX Runtime can run that (docs/ContribOperators.md): 8-bit
products with what it reads rounded by its own range; W and R [directions, inputs, 4 * hidden] with a scale per column.
Everything else takes its matrix from Cast and Mul: w = float(code) * scale. ONNX Runtime computes both once when it
loads the file. It does not do so with DequantizeLinear, which it keeps for integer kernels: measured, an LSTM of 256
units then decodes its matrices at each run and takes more than twice as long (bench/recurrent.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from bitwright.files.layers import Floats, Layer

DOMAIN = "com.microsoft"
Keep = Callable[[str, npt.NDArray[np.generic], int | None], str]
"""Stores an initializer under the wanted name, as an ONNX type if one is given; returns the name that it got."""
Codes = tuple[npt.NDArray[np.int64], Floats]
"""Signed codes [rows, columns] and scales [rows, 1], symmetric."""
WHOLE = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4)


def dynamic_lstm(node: onnx.NodeProto, layers: Sequence[Layer], codes: Mapping[str, Codes], keep: Keep) -> None:
    """Turn the LSTM `node`, whose matrices are `layers`, into a DynamicQuantizeLSTM, in place."""
    node.op_type, node.domain = "DynamicQuantizeLSTM", DOMAIN
    node.input.extend([""] * (8 - len(node.input)))
    for layer in layers:
        values, scale = codes[layer.weight]
        turned = values.reshape(layer.shape).swapaxes(1, 2)
        scales = np.broadcast_to(scale, (values.shape[0], 1)).reshape(layer.shape[:2])
        node.input[layer.slot] = keep(f"{layer.weight}_quantized", turned, TensorProto.INT8)
        node.input.append(keep(f"{layer.weight}_scale", scales, None))
        node.input.append(keep(f"{layer.weight}_zero_point", np.zeros_like(scales), TensorProto.INT8))


def decoding(layer: Layer, codes: Codes, kind: int, output: str, between: str, keep: Keep) -> list[onnx.NodeProto]:
    """Nodes that make the tensor `output`, the matrix of `layer`, of codes stored as `kind`, by way of `between`."""
    values, scale = codes
    scales = np.broadcast_to(scale, (values.shape[0], 1)).reshape(*layer.shape[:2], 1)
    stored = keep(f"{layer.weight}_codes", values.reshape(layer.shape), kind)
    return [
        helper.make_node("Cast", [stored], [between], f"{output}_Cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [between, keep(f"{layer.weight}_scales", scales, None)], [output], f"{output}_Mul"),
    ]


def decode(model: onnx.ModelProto) -> dict[str, Floats]:
    """The values of every constant that Cast and Mul make of stored codes, by the name that its readers use."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    casts = {
        node.output[0]: stored[node.input[0]]
        for node in model.graph.node
        if node.op_type == "Cast" and node.input[0] in stored and stored[node.input[0]].data_type in WHOLE
    }
    found = {}
    for node in model.graph.node:
        if node.op_type == "Mul" and node.input[0] in casts and node.input[1] in stored:
            scale = numpy_helper.to_array(stored[node.input[1]])
            found[node.output[0]] = numpy_helper.to_array(casts[node.input[0]]).astype(np.float32) * scale
    return found
