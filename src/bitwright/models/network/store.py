"""The constants and shapes of a graph while it is rewritten, and what rewriting does to weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from bitwright.files.layers import attribute

Vector = npt.NDArray[np.float64]


class Store:
    """Initializers by name (`stored`), and the shapes that were inferred before."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.stored = {tensor.name: tensor for tensor in graph.initializer}
        self._values = {value.name: value for value in [*graph.value_info, *graph.input, *graph.output]}

    def shape(self, name: str) -> list[int | None] | None:
        """The shape of float32 tensor `name` (None for a dynamic dimension); None where type or rank is another."""
        value = self._values.get(name)
        if value is None or value.type.tensor_type.elem_type != TensorProto.FLOAT:
            return None
        if not value.type.tensor_type.HasField("shape"):
            return None
        return [int(d.dim_value) if d.dim_value > 0 else None for d in value.type.tensor_type.shape.dim]

    def tensor(self, name: str, like: str) -> str:
        """The name of a new tensor that is shaped as `like`."""
        while name in self._values or name in self.stored:
            name += "_"
        if like in self._values:
            self._values[name] = self._values[like]
        return name

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        """Store `value` as a new float32 initializer."""
        while name in self.stored:
            name += "_"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        self.stored[name] = self.graph.initializer[-1]
        return name

    def value(self, name: str) -> Vector:
        """Initializer `name` in float64."""
        return numpy_helper.to_array(self.stored[name]).astype(np.float64)

    def set(self, name: str, value: npt.NDArray[np.float64]) -> None:
        """Give initializer `name` other values, in its own dtype."""
        dtype = helper.tensor_dtype_to_np_dtype(self.stored[name].data_type)
        self.stored[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value, dtype), name))

    def normal(self, node: onnx.NodeProto) -> tuple[Vector, Vector] | None:
        """(factor, offset) of each channel that BatchNormalization of an image or signal applies; None where it learns.

        factor = gamma / sqrt(variance + epsilon), offset = beta - mean * factor.
        """
        shape = self.shape(node.input[0])
        if shape is None or len(shape) < 3 or attribute(node, "training_mode", 0) or len(node.output) > 1:
            return None
        if not all(name in self.stored for name in node.input[1:5]):
            return None
        gamma, beta, mean, variance = (self.value(name) for name in node.input[1:5])
        epsilon = attribute(node, "epsilon", 1e-5)
        assert isinstance(epsilon, float)
        factor = gamma / np.sqrt(variance + epsilon)
        return factor, beta - mean * factor

    def depthwise(self, name: str, data: str, factor: Vector, offset: Vector, out: str) -> onnx.NodeProto:
        """factor x + offset per channel as a convolution from `data` to `out`, both images or signals."""
        rank = len(self.shape(data) or ())
        w = self.constant(f"{name}.weight", factor.reshape(len(factor), 1, *[1] * (rank - 2)))
        b = self.constant(f"{name}.bias", offset)
        return helper.make_node("Conv", [data, w, b], [out], f"{name}.conv", group=len(factor))


def scale_outputs(
    w: npt.NDArray[np.float64], node: onnx.NodeProto, factor: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The stored weight `w` of `node` with output channel i multiplied by factor[i] (or all by the one factor)."""
    if len(factor) == 1:
        return w * factor
    if node.op_type == "Conv":
        return w * factor.reshape(-1, *[1] * (w.ndim - 1))
    if node.op_type == "ConvTranspose":
        groups = attribute(node, "group", 1)
        assert isinstance(groups, int)
        split = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
        return (split * factor.reshape(groups, 1, w.shape[1], *[1] * (w.ndim - 2))).reshape(w.shape)
    return w * (factor[:, None] if attribute(node, "transB", 0) else factor[None, :])
