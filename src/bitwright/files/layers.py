"""Facts about a float ONNX graph that its writers need: layers, their matrices, and where integers are to flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

Floats = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]
RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}
"""Operators with two matrices, and how many gates each has (https://onnx.ai/onnx/operators)."""
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", *RECURRENT)
"""Operators that multiply by a matrix."""


@dataclass(frozen=True)
class Layer:
    """One multiplication by a constant matrix, and where it lies in the graph.

    `op` is Conv, ConvTranspose, Gemm, MatMul, or one of `RECURRENT`, whose node has two layers: input `slot` 1 of it is
    the matrix for what it reads, `slot` 2 that for its own state, each [directions, gates * hidden, inputs]. `weight`
    names the initializer, `bias` that of the bias (the constant of a following Add for MatMul) or is None. `raw` is the
    tensor before, `output` the one after the `activation` (Relu or Clip) that runtimes fuse; they are the same without
    one. `nodes` names the nodes from the product to the activation. `shape` is that of the stored weight. `transposed`
    says that a Gemm stores it as [in, out], `flat` that a MatMul and its bias take matrices, as one Gemm does.
    """

    name: str
    op: str
    input: str
    weight: str
    shape: tuple[int, ...]
    raw: str
    output: str
    bias: str | None = None
    activation: str | None = None
    groups: int = 1
    transposed: bool = False
    flat: bool = False
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    auto_pad: str = "NOTSET"
    nodes: tuple[str, ...] = ()
    slot: int = 1

    @property
    def node(self) -> str:
        """The node that multiplies."""
        return self.nodes[0]

    @property
    def recurrent(self) -> bool:
        """Whether it is one of the two matrices of an LSTM, GRU or RNN."""
        return self.op in RECURRENT

    @property
    def outputs(self) -> int:
        """Output channels: the rows of its matrix."""
        if self.op == "ConvTranspose":
            return self.shape[1] * self.groups
        return self.shape[0] * self.shape[1] if self.recurrent else self.shape[self.axis]

    @property
    def inputs(self) -> int:
        """Input channels, of all groups."""
        if self.op == "ConvTranspose":
            return self.shape[0]
        if self.recurrent:
            return self.shape[2]
        return self.shape[1] * self.groups if self.op == "Conv" else self.shape[1 - self.axis]

    @property
    def rows(self) -> int:
        """Rows of its matrix: output channels."""
        return self.outputs

    @property
    def columns(self) -> int:
        """Columns of its matrix: inputs per group * kernel."""
        return int(np.prod(self.shape, dtype=np.int64)) // self.outputs

    @property
    def axis(self) -> int:
        """The axis of the stored weight that runs over outputs (within a group, for ConvTranspose)."""
        if self.op == "Conv":
            return 0
        return 1 if self.op in ("ConvTranspose", "MatMul") or self.transposed or self.recurrent else 0


def to_matrix(layer: Layer, w: Floats) -> Floats:
    """The stored weight `w` of `layer` as [outputs, inputs per group * kernel], float32."""
    w = np.asarray(w, np.float32)
    if layer.op == "Conv":
        return w.reshape(w.shape[0], -1)
    if layer.recurrent:
        return w.reshape(-1, w.shape[2])
    if layer.op == "ConvTranspose":
        split = w.reshape(layer.groups, w.shape[0] // layer.groups, w.shape[1], -1)
        return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(layer.outputs, -1)
    return np.ascontiguousarray(w.T) if layer.axis == 1 else w


def from_matrix(layer: Layer, matrix: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The inverse of `to_matrix`, for any dtype: [outputs, inputs per group * kernel] -> the stored shape."""
    if layer.op == "Conv" or layer.recurrent:
        return matrix.reshape(layer.shape)
    if layer.op == "ConvTranspose":
        split = matrix.reshape(layer.groups, layer.shape[1], layer.shape[0] // layer.groups, -1)
        return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(layer.shape)
    return np.ascontiguousarray(matrix.T) if layer.axis == 1 else matrix


@dataclass(frozen=True)
class Placement:
    """Where integers flow: decided by `models.network.placement`, written by `to_qdq`.

    `activations` names the tensors that are quantized, each group of `shared` with one common Affine (operators that
    only move or choose values). `nodes` names the nodes that run in integers, `fused` maps an activation node to the
    node it is absorbed into, `direct` names nodes written on the codes themselves (Pad), `small` the layers of
    recurrent nodes that are quantized, `dynamic` LSTMs that round what they read and their state to 8 bits when they
    run, by ranges of their own. `floats` says of every other
    node with floating-point values why it stays float. `rounded` names network outputs that are rounded to 8 bits.
    """

    target: str
    activations: tuple[str, ...]
    shared: tuple[tuple[str, ...], ...] = ()
    nodes: frozenset[str] = frozenset()
    fused: Mapping[str, str] = field(default_factory=dict)
    direct: frozenset[str] = frozenset()
    small: frozenset[str] = frozenset()
    dynamic: frozenset[str] = frozenset()
    floats: Mapping[str, str] = field(default_factory=dict)
    rounded: tuple[str, ...] = ()


def spared(layers: Sequence[Layer], placement: Placement) -> frozenset[str]:
    """Names of the layers that stay float beside a quantized layer of the same weight: they read it as it was."""
    quantized = placement.nodes | placement.small
    weights = {layer.weight for layer in layers if layer.name in quantized}
    return frozenset(layer.name for layer in layers if layer.weight in weights and layer.name not in quantized)


@dataclass(frozen=True)
class Stream:
    """`size` independent channels. Each layer comes with an index: which of them its output (input) channel i is.

    `tensors` maps tensor names to (channel axis, index). `producers` may include LayerNormalization (its scale and bias
    take the factors); `consumers` are layers only. For a plain chain all indices are 0 ... size - 1.
    """

    size: int
    producers: tuple[tuple[Layer, Index], ...]
    consumers: tuple[tuple[Layer, Index], ...]
    tensors: dict[str, tuple[int, Index]]

    @property
    def weights(self) -> set[str]:
        """Those that take the factors."""
        return {layer.weight for layer, _ in (*self.producers, *self.consumers)}


class Network(Protocol):
    """What `to_qdq` needs of `models.network.graph.Graph`."""

    @property
    def model(self) -> onnx.ModelProto: ...

    @property
    def layers(self) -> Sequence[Layer]: ...

    @property
    def matrices(self) -> Sequence[Layer]: ...


def names_read(graph: onnx.GraphProto) -> set[str]:
    """Names of all tensors that nodes read, in subgraphs too."""
    found: set[str] = set()
    for node in graph.node:
        found.update(node.input)
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                found |= names_read(inner) | {value.name for value in inner.output}
    return found


def attribute(node: onnx.NodeProto, name: str, default: object) -> object:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default
