"""MatMulNBits: matrix products whose weights lie packed in 2, 4 or 8 bits with one scale per group of inputs.

Layout of com.microsoft.MatMulNBits version 1 (ONNX Runtime, docs/ContribOperators.md): B uint8 [N, blocks, block * bits
/ 8], least significant bits first, stored value = code + 2^(bits - 1); scales [N, blocks]; zero points packed along the
blocks of a row, 2^(bits - 1) where absent. w = scale * (B - zero).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from bitwright.core.bits import pack, unpack
from bitwright.core.grid import UINT, Grid
from bitwright.core.measure import Usage
from bitwright.core.qtensor import QTensor
from bitwright.errors import ModelError, TensorError
from bitwright.files.container import Counted
from bitwright.files.counted import size
from bitwright.files.layers import Network, names_read

DOMAIN = "com.microsoft"
BITS = (2, 4, 8)
GROUPS = (16, 32, 64, 128, 256)


def matmul_nbits(graph: Network, weights: Mapping[str, QTensor], *, accuracy_level: int = 0) -> onnx.ModelProto:
    """A copy of the graph's model in which the layers MatMul and Gemm of `weights` {weight name: QTensor} are packed.

    A QTensor is [N outputs, K inputs] of 2, 4 or 8 bits in groups of 16 to 256 inputs (the last group of a row may be
    short: K need not divide), symmetric or with integer zeros. Inputs stay float: `accuracy_level` 4 lets the runtime
    quantize them to 8 bits on the fly, 0 leaves them alone. Raises TensorError for other formats, ModelError for a
    weight that no layer reads.
    """
    source = graph.model
    layers = {layer.name: layer for layer in graph.layers if layer.weight in weights}
    for name in weights:
        if not any(layer.weight == name and layer.op in ("MatMul", "Gemm") for layer in layers.values()):
            raise ModelError(f"no MatMul or Gemm reads a constant {name}")
    out = onnx.ModelProto()
    for field in source.DESCRIPTOR.fields:
        if field.name != "graph" and (field.is_repeated or source.HasField(field.name)):
            part = onnx.ModelProto()
            _copy(source, part, field.name)
            out.MergeFrom(part)
    out.producer_name = "bitwright"
    if not any(entry.domain == DOMAIN for entry in out.opset_import):
        out.opset_import.add(domain=DOMAIN, version=1)
    new: dict[str, TensorProto] = {}
    for node in source.graph.node:
        layer = layers.get(node.name)
        if layer is None or layer.op not in ("MatMul", "Gemm"):
            out.graph.node.append(node)
            continue
        k, n = layer.inputs, layer.outputs
        inputs, bits, block = _store(weights[layer.weight], layer.weight, (n, k), new)
        bias = layer.bias if layer.op == "Gemm" else None
        attributes: dict[str, Any] = dict(K=k, N=n, bits=bits, block_size=block, accuracy_level=accuracy_level)
        # Inputs: A, B, scales, zero points, group index, bias.
        names = [node.input[0], *inputs, *([""] * (3 - len(inputs)) if bias else []), *(["", bias] if bias else [])]
        if any(a.name == "transA" and a.i for a in node.attribute):
            names[0] = f"{node.name}_transposed"
            out.graph.node.append(helper.make_node("Transpose", [node.input[0]], [names[0]], names[0], perm=[1, 0]))
        out.graph.node.append(
            helper.make_node("MatMulNBits", names, node.output, node.name, domain=DOMAIN, **attributes)
        )
    out.graph.name = source.graph.name
    out.graph.input.MergeFrom(source.graph.input)
    out.graph.output.MergeFrom(source.graph.output)
    read = names_read(out.graph) | {value.name for value in source.graph.output}
    out.graph.initializer.extend(tensor for tensor in source.graph.initializer if tensor.name in read)
    out.graph.initializer.extend(new.values())
    return out


def _copy(source: onnx.ModelProto, into: onnx.ModelProto, name: str) -> None:
    value = getattr(source, name)
    if hasattr(value, "MergeFrom"):
        getattr(into, name).MergeFrom(value)
    else:
        setattr(into, name, value)


def _store(
    tensor: QTensor, weight: str, shape: tuple[int, int], new: dict[str, TensorProto]
) -> tuple[list[str], int, int]:
    """Put B, scales and zero points into `new`; their names, the bits and the block size."""
    n, k = shape
    grid, columns = tensor.format.code, int(tensor.codes.shape[1])
    scale = np.asarray(tensor.scale, np.float32)
    bits = tensor.format.bits
    block = columns // scale.shape[1] if scale.shape[1] > 1 else columns
    if scale.shape[1] == 1:
        # One scale per row: the same scale in every group of the largest size that fits.
        block = next((size for size in reversed(GROUPS) if size <= k), GROUPS[0])
        scale = np.repeat(scale, -(-k // block), axis=1)
    if tuple(tensor.codes.shape) != shape or scale.shape[0] != n:
        raise TensorError(f"codes {list(tensor.codes.shape)} for a matrix {list(shape)}", where=weight)
    if (
        not (isinstance(grid, Grid) and grid.uniform and grid.low % 1 == 0)
        or tensor.shift is not None
        or bits not in BITS
        or block not in GROUPS
    ):
        raise TensorError(
            f"format {tensor.format.name} in groups of {block} does not fit MatMulNBits",
            where=weight,
            fix="Use 2, 4 or 8 bits in groups of 16, 32, 64, 128 or 256",
        )
    half = 2 ** (bits - 1)
    blocks = scale.shape[1]
    codes = (np.asarray(tensor.codes).astype(np.int16) + int(grid.low) + half).astype(np.uint8)
    codes = np.pad(codes, ((0, 0), (0, blocks * block - k)), constant_values=half)
    packed = pack(codes.reshape(n * blocks, block), bits).reshape(n, blocks, -1)
    names = [f"{weight}_packed", f"{weight}_scales"]
    new[names[0]] = numpy_helper.from_array(packed, names[0])
    new[names[1]] = numpy_helper.from_array(np.ascontiguousarray(scale), names[1])
    if tensor.zero is not None:
        zero = np.broadcast_to(np.asarray(tensor.zero), (n, tensor.zero.shape[1]))
        zero = np.repeat(zero, blocks // zero.shape[1], axis=1) if zero.shape[1] != blocks else zero
        names.append(f"{weight}_zero_points")
        zeros = pack((np.rint(zero) + half).astype(np.uint8), bits)
        new[names[2]] = numpy_helper.from_array(zeros, names[2])
    return names, bits, block


def _unpacked(node: onnx.NodeProto, stored: Mapping[str, TensorProto]) -> tuple[int, int, int, npt.NDArray[np.uint8]]:
    """K, bits, group size and codes [N, blocks, group size] of a MatMulNBits node."""
    attributes = {a.name: a.i for a in node.attribute}
    k, n, bits, block = (int(attributes[name]) for name in ("K", "N", "bits", "block_size"))
    blocks = -(-k // block)
    packed = numpy_helper.to_array(stored[node.input[1]]).reshape(n * blocks, -1)
    return k, bits, block, unpack(packed, bits, block).reshape(n, blocks, block)


def decode_node(node: onnx.NodeProto, stored: Mapping[str, TensorProto]) -> npt.NDArray[np.float32]:
    """The float32 matrix [K, N] that a MatMulNBits node multiplies by."""
    k, bits, _, codes = _unpacked(node, stored)
    n, blocks, _ = codes.shape
    scale = numpy_helper.to_array(stored[node.input[2]]).reshape(n, blocks).astype(np.float32)
    zero = np.full((n, blocks), 2.0 ** (bits - 1), np.float32)
    if len(node.input) > 3 and node.input[3]:
        zero = unpack(numpy_helper.to_array(stored[node.input[3]]).reshape(n, -1), bits, blocks).astype(np.float32)
    values = (codes.astype(np.float32) - zero[..., None]) * scale[..., None]
    return np.ascontiguousarray(values.reshape(n, -1)[:, :k].T)


def counted(model: onnx.ModelProto) -> dict[str, Counted]:
    """How finely the matrix of every MatMulNBits node is stored, its padding left out, under the names of `decode`."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    out = {}
    for node in _nodes(model, stored):
        k, bits, block, codes = _unpacked(node, stored)
        usage = Usage.of(codes.reshape(codes.shape[0], -1)[:, :k], UINT[bits])
        held = sum(size(stored[name]) for name in node.input[1:4] if name in stored)
        out[_weight(node)] = Counted(f"uint{bits} g{block}", (k, codes.shape[0]), held, usage)
    return out


def decode(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.float32]]:
    """The matrix [K, N] of every MatMulNBits node, by the name of its B without the ending that we write."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    return {_weight(node): decode_node(node, stored) for node in _nodes(model, stored)}


def _nodes(model: onnx.ModelProto, stored: Mapping[str, TensorProto]) -> list[onnx.NodeProto]:
    """The MatMulNBits nodes of constant weights."""
    found = [node for node in model.graph.node if node.op_type == "MatMulNBits" and node.domain == DOMAIN]
    return [node for node in found if node.input[1] in stored and node.input[2] in stored]


def _weight(node: onnx.NodeProto) -> str:
    return str(node.input[1].removesuffix("_packed"))
