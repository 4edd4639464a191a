"""Prepares a float ONNX network for quantization: the same function in a simpler form.

Constants become initializers, what depends on constants alone is computed, identities go, batch norm is folded into
the layer before it (w' = w gamma / sqrt(var + eps), b' = (b - mean) gamma / sqrt(var + eps) + beta; Jacob et al. 2018,
arXiv 1712.05877, section 3.2), as is other arithmetic with constants (`arithmetic`), Gemm loses its alpha and beta,
every node gets a name, shapes are inferred.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.inliner
import onnx.reference
import onnx.shape_inference
from onnx import TensorProto, helper, numpy_helper

from bitwright.errors import ModelError
from bitwright.files.layers import attribute, names_read
from bitwright.files.opset import OLDEST, opset, upgrade
from bitwright.models.network.arithmetic import Normals, simplify
from bitwright.models.network.axes import is_open, name_of
from bitwright.models.network.branches import fix, take_branches
from bitwright.models.network.precision import to_float32
from bitwright.models.network.rewrite import rewrite, static_shape
from bitwright.models.network.store import scale_outputs
from bitwright.words import plural

SMALL = 1 << 12
"""Bytes above which a tensor is a weight, which shape inference need not see."""
MOST = 1 << 26
"""Bytes up to which a result that depends on constants alone is stored."""
FOLDED = {
    "Abs", "Add", "And", "Cast", "Ceil", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Flatten", "Floor",
    "Gather", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "Not",
    "Or", "Range", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Sign", "Slice", "Squeeze", "Sub",
    "Tile", "Transpose", "Unsqueeze", "Where", "Xor",
}  # fmt: skip
"""Operators computed beforehand where all inputs are constant: shape arithmetic and the layout of weights."""


def prepare(
    model: onnx.ModelProto,
    bind: Mapping[str, int | None] | None = None,
    where: str = "model",
    axes: Mapping[str, int | None] | None = None,
    constant: Mapping[str, npt.NDArray[np.generic]] | None = None,
) -> tuple[onnx.ModelProto, list[str], Normals]:
    """`model`, changed in place where possible, notes on what was done that its owner should know, and folded norms.

    `bind` gives sizes of dynamic dimensions by their name or as "input.axis"; None leaves one dynamic on purpose.
    `axes` are those of the batch (default: the first), `constant` the values of inputs that never change. Raises
    ModelError for another dynamic dimension that is not bound, FileError where an old operator set cannot be raised.
    """
    notes = []
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    if opset(model) < OLDEST:
        notes.append(f"opset {opset(model)} raised to {OLDEST}")
        model = upgrade(model, OLDEST, where)
    bind_shapes(model.graph, bind or {}, where, axes)
    if model.ir_version < 4:  # it lists its weights among the inputs, which `_sweep` ends
        model.ir_version = 4
    elif knobs := [t.name for t in model.graph.initializer if t.name in _given(model.graph) and math.prod(t.dims) < 2]:
        notes.append(f"inputs with a stored value became constants: {', '.join(knobs)}")
    fix(model.graph, constant or {})
    widened = to_float32(model, where)
    notes += widened
    _constants(model.graph)
    _names(model.graph)
    _identities(model.graph)
    infer(model)
    if widened:
        values = [*model.graph.value_info, *model.graph.input]
        _identities(model.graph, {value.name: value.type.tensor_type.elem_type for value in values})
    while _fold_constants(model):
        infer(model)
        if not take_branches(model.graph):
            break
        _constants(model.graph)
        _names(model.graph)
        _identities(model.graph)
        infer(model)
    _gemms(model.graph)
    if normals := _fold_batch_norm(model.graph):
        notes.append(f"{len(normals)} batch norms folded")
    pinned = captured(model.graph) | {value.name for value in model.graph.output}
    folded, count = simplify(model.graph, pinned, normals)
    if folded:
        notes.append(f"{plural(folded, 'operation')} with constants folded into layers")
    infer(model)
    if count := count + rewrite(model.graph):
        notes.append(f"{count} operators written as depthwise convolutions or pooling")
    _sweep(model.graph)
    infer(model)
    return model, notes, normals


def bind_shapes(
    graph: onnx.GraphProto, bind: Mapping[str, int | None], where: str, axes: Mapping[str, int | None] | None = None
) -> None:
    """Fix the dynamic dimensions named in `bind`; ModelError for those that nobody bound or names that nothing has.

    Those of a batch, along `axes`, may stay open. Dimensions that have no name are bound one by one.
    """
    known, sizes = set(), {}
    for value in fed(graph):
        if not value.type.tensor_type.HasField("shape"):
            raise ModelError(f"input {value.name} has no shape", where=where, fix="Export the model with input shapes")
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if not is_open(size):
                continue
            name = name_of(size)
            keys = [key for key in (name, f"{value.name}.{axis}") if key]
            known.update(keys)
            given = [key for key in keys if key in bind]
            if given and bind[given[0]] is not None:
                sizes[name] = bind[given[0]]
                size.dim_value = bind[given[0]] or 0
            elif not given and axis != (0 if axes is None else axes.get(value.name)):
                raise ModelError(
                    f"input {value.name} has a dynamic dimension {keys[0]!r} (axis {axis})",
                    where=where,
                    fix=f"Give its size, --bind {keys[0]}=SIZE, or leave it open, --bind {keys[0]}=any",
                )
    if unknown := sorted(set(bind) - known):
        raise ModelError(f"no dynamic dimension is called {unknown[0]!r}", where=where,
                         fix=f"It has: {', '.join(sorted(known)) or 'none'}")  # fmt: skip
    for value in graph.output:
        for size in value.type.tensor_type.shape.dim:
            if is_open(size) and name_of(size) in sizes and name_of(size):
                size.dim_value = sizes[name_of(size)] or 0


def _given(graph: onnx.GraphProto) -> set[str]:
    return {value.name for value in graph.input}


def fed(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that must be fed: older files list stored tensors among them, newer ones inputs with a default."""
    stored = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in stored]


def infer(model: onnx.ModelProto) -> None:
    """Fill `value_info` with the inferred type and shape of every tensor, whatever the size of the weights."""
    light = onnx.ModelProto()
    light.ir_version = max(model.ir_version, 4)
    light.opset_import.MergeFrom(model.opset_import)
    graph = light.graph
    graph.name = model.graph.name or "graph"
    graph.node.MergeFrom(model.graph.node)
    graph.output.MergeFrom(model.graph.output)
    stored = {tensor.name for tensor in model.graph.initializer}
    graph.input.extend(value for value in model.graph.input if value.name not in stored)
    for tensor in model.graph.initializer:
        if tensor.ByteSize() <= SMALL:
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    try:
        inferred = onnx.shape_inference.infer_shapes(light, data_prop=True)
    except (RuntimeError, ValueError):
        inferred = onnx.shape_inference.infer_shapes(light)
    found = {value.name for value in inferred.graph.value_info}
    # What a custom operator returns, only the exporter knew.
    declared = [value for value in model.graph.value_info if value.name not in found]
    del model.graph.value_info[:]
    model.graph.value_info.MergeFrom(inferred.graph.value_info)
    model.graph.value_info.extend(declared)
    for value, known in zip(model.graph.output, inferred.graph.output, strict=True):
        if not value.type.tensor_type.HasField("shape"):
            value.type.CopyFrom(known.type)


def _constants(graph: onnx.GraphProto) -> None:
    """Constant nodes become initializers."""
    kept = []
    for node in graph.node:
        if node.op_type != "Constant" or node.domain or any(a.name == "sparse_value" for a in node.attribute):
            kept.append(node)
            continue
        value = helper.get_attribute_value(node.attribute[0])
        kind = node.attribute[0].name
        if kind == "value":
            tensor = TensorProto()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
        elif "string" in kind:
            tensor = helper.make_tensor(node.output[0], TensorProto.STRING, [len(value)] if kind[-1] == "s" else [],
                                        value if kind[-1] == "s" else [value])  # fmt: skip
        else:
            tensor = numpy_helper.from_array(
                np.array(value, np.float32 if "float" in kind else np.int64), node.output[0]
            )
        graph.initializer.append(tensor)
    _replace(graph, kept)


def _replace(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _names(graph: onnx.GraphProto) -> None:
    """A unique name for every node."""
    count = Counter(node.name for node in graph.node)
    taken = set(count)
    for i, node in enumerate(graph.node):
        if node.name and count[node.name] == 1:
            continue
        name = f"{node.op_type}_{i}"
        while name in taken:
            name += "_"
        taken.add(name)
        node.name = name


def captured(graph: onnx.GraphProto) -> set[str]:
    """Names that subgraphs of `graph` may read from it."""
    found: set[str] = set()
    for node in graph.node:
        for a in node.attribute:
            for inner in [a.g] if a.HasField("g") else a.graphs:
                found |= names_read(inner) | {value.name for value in inner.output}
    return found


def _identities(graph: onnx.GraphProto, types: Mapping[str, int] | None = None) -> None:
    """Remove Identity, Dropout (in inference) and Cast to the type that its input has by `types`.

    Those remain whose name a network output or a subgraph needs.
    """
    pinned = {value.name for value in graph.output} | captured(graph)
    used = {name for node in graph.node for name in node.input}
    alias: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = alias.get(name, name)
        training = len(node.input) > 2 and node.input[2]
        plain = node.op_type == "Identity" or (
            types is not None and node.op_type == "Cast" and types.get(node.input[0], 0) == attribute(node, "to", None)
        )
        plain = plain or (
            node.op_type == "Dropout" and not training and not any(out in used for out in node.output[1:])
        )
        if plain and not node.domain and not pinned & set(node.output):
            alias[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    if alias:
        _replace(graph, kept)


def _fold_constants(model: onnx.ModelProto) -> int:
    """Compute nodes of `FOLDED` (and Shape of a static shape) whose inputs are constant; how many."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    values = [*graph.value_info, *graph.input, *graph.output]
    shapes = {v.name: static_shape(v) for v in values} | {name: list(t.dims) for name, t in constants.items()}
    partly = {v.name: v for v in values}
    sizes: dict[str, list[int | None]] = {}
    kept, folded = [], 0
    for node in graph.node:
        value: npt.NDArray[np.generic] | None = None
        shape = shapes.get(node.input[0]) if node.input else None
        if node.op_type == "Shape" and shape is not None and not node.domain:
            start, end = attribute(node, "start", 0), attribute(node, "end", len(shape))
            assert isinstance(start, int) and isinstance(end, int)
            value = np.array(shape[start:end], np.int64)
        elif node.op_type == "Size" and shape is not None and not node.domain:
            value = np.array(math.prod(shape), np.int64)
        elif node.op_type == "Shape" and node.input[0] in partly and not node.domain:
            sizes[node.output[0]] = _sizes(node, partly[node.input[0]])
        elif node.op_type == "Gather" and node.input[0] in sizes and node.input[1] in constants and not node.domain:
            value = _chosen(sizes[node.input[0]], numpy_helper.to_array(constants[node.input[1]]))
        elif node.op_type in FOLDED and not node.domain and node.input:
            inputs = [name for name in node.input if name]
            if inputs and all(name in constants for name in inputs):
                value = _compute(model, node, constants)
        if value is None or outputs & set(node.output):
            kept.append(node)
            continue
        tensor = numpy_helper.from_array(np.asarray(value, order="C"), node.output[0])
        constants[node.output[0]] = tensor
        graph.initializer.append(tensor)
        folded += 1
    if folded:
        _replace(graph, kept)
    return folded


def _sizes(node: onnx.NodeProto, value: onnx.ValueInfoProto) -> list[int | None]:
    """What a Shape `node` says of `value`, None for an open dimension; empty where nobody knows its rank."""
    dims = value.type.tensor_type.shape.dim
    found = [None if is_open(dim) else int(dim.dim_value) for dim in dims]
    start, end = attribute(node, "start", 0), attribute(node, "end", len(found))
    assert isinstance(start, int) and isinstance(end, int)
    return found[start:end]


def _chosen(sizes: Sequence[int | None], index: npt.NDArray[np.generic]) -> npt.NDArray[np.generic] | None:
    """What Gather takes out of a shape; None where one of it is open."""
    places = [int(i) for i in index.reshape(-1)]
    if not sizes or any(not -len(sizes) <= i < len(sizes) for i in places):
        return None
    found = [sizes[i] for i in places]
    return None if None in found else np.array(found, np.int64).reshape(index.shape)


def _compute(
    model: onnx.ModelProto, node: onnx.NodeProto, constants: Mapping[str, TensorProto]
) -> npt.NDArray[np.generic] | None:
    """The single output of `node`, or None where it is large or the reference evaluator cannot say."""
    if len(node.output) != 1 or sum(constants[name].ByteSize() for name in node.input if name) > MOST:
        return None
    small = onnx.ModelProto()
    small.ir_version = max(model.ir_version, 4)
    small.opset_import.MergeFrom(model.opset_import)
    small.graph.name = "one"
    small.graph.node.append(node)
    small.graph.initializer.extend(constants[name] for name in dict.fromkeys(node.input) if name)
    small.graph.output.append(onnx.ValueInfoProto(name=node.output[0]))
    try:
        results: Any = onnx.reference.ReferenceEvaluator(small).run(None, {})
    except (NotImplementedError, RuntimeError, TypeError, ValueError, IndexError, KeyError):
        return None
    value = np.asarray(results[0])
    return value if 0 < value.nbytes <= MOST or value.size == 0 else None


def _fold_batch_norm(graph: onnx.GraphProto) -> Normals:
    """Fold every BatchNormalization that alone follows a Conv, ConvTranspose or Gemm of constants; what they wrote."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {out: node for node in graph.node for out in node.output}
    used = _uses(graph)
    gone: set[str] = set()
    normals: Normals = {}
    for node in graph.node:
        before = producers.get(node.input[0]) if node.input else None
        if (
            node.op_type != "BatchNormalization"
            or before is None
            or before.op_type not in ("Conv", "ConvTranspose", "Gemm")
            or used[node.input[0]] != 1
            or attribute(node, "training_mode", 0)
            or not all(name in constants for name in [before.input[1], *node.input[1:5]])
            or (len(before.input) > 2 and before.input[2] and before.input[2] not in constants)
        ):
            continue
        gamma, beta, mean, variance = (
            numpy_helper.to_array(constants[name]).astype(np.float64) for name in node.input[1:5]
        )
        epsilon = attribute(node, "epsilon", 1e-5)
        assert isinstance(epsilon, float)
        factor = gamma / np.sqrt(variance + epsilon)
        stored = numpy_helper.to_array(constants[before.input[1]])
        bias = np.zeros_like(mean)
        if len(before.input) > 2 and before.input[2]:
            bias = numpy_helper.to_array(constants[before.input[2]]).astype(np.float64)
        w = scale_outputs(stored.astype(np.float64), before, factor)
        for index, value in ((1, w), (2, (bias - mean) * factor + beta)):
            old = before.input[index] if len(before.input) > index else ""
            name = old if old and used[old] == 1 else f"{before.name}.{'bias' if index == 2 else 'weight'}"
            tensor = numpy_helper.from_array(np.ascontiguousarray(value.astype(stored.dtype)), name)
            if name in constants:
                constants[name].CopyFrom(tensor)
            else:
                graph.initializer.append(tensor)
                constants[name] = graph.initializer[-1]
            while len(before.input) <= index:
                before.input.append("")
            before.input[index] = name
        before.output[0] = node.output[0]
        producers[node.output[0]] = before
        gone.add(node.name)
        normals[node.output[0]] = beta.astype(np.float32), np.abs(gamma).astype(np.float32)
    if gone:
        _replace(graph, [node for node in graph.node if node.name not in gone])
    return normals


def _uses(graph: onnx.GraphProto) -> Counter[str]:
    """How often each tensor is read: by nodes, by subgraphs, as an output of the network."""
    used = Counter(name for node in graph.node for name in node.input)
    used.update(captured(graph) | {value.name for value in graph.output})
    return used


def _gemms(graph: onnx.GraphProto) -> None:
    """alpha and beta go into the constants of a Gemm, and a bias of one or [1, N] values becomes [N]."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    used = _uses(graph)
    for node in graph.node:
        if node.op_type != "Gemm" or node.input[1] not in constants:
            continue
        shape = list(constants[node.input[1]].dims)
        outputs = shape[0] if attribute(node, "transB", 0) else shape[1]
        for index, key in ((1, "alpha"), (2, "beta")):
            name = node.input[index] if len(node.input) > index else ""
            factor = attribute(node, key, 1.0)
            if name not in constants:
                continue
            value = numpy_helper.to_array(constants[name])
            wanted = (
                value if index == 1 or value.size not in (1, outputs) else np.broadcast_to(value.reshape(-1), outputs)
            )
            if factor == 1.0 and wanted.shape == value.shape:
                continue
            new = name if used[name] == 1 else f"{node.name}.{key}"
            tensor = numpy_helper.from_array((wanted * np.asarray(factor)).astype(value.dtype), new)
            if new in constants:
                constants[new].CopyFrom(tensor)
            else:
                graph.initializer.append(tensor)
                constants[new] = graph.initializer[-1]
            node.input[index] = new
            for a in node.attribute:
                if a.name == key:
                    a.f = 1.0


def _sweep(graph: onnx.GraphProto) -> None:
    """Drop nodes and initializers that nothing reads, and initializers among the inputs (as IR 3 listed them)."""
    outputs = {value.name for value in graph.output}
    while True:
        read = names_read(graph) | outputs
        dead = [node for node in graph.node if not read & set(node.output)]
        if not dead:
            break
        _replace(graph, [node for node in graph.node if read & set(node.output)])
    stored = {tensor.name for tensor in graph.initializer}
    for i in reversed(range(len(graph.initializer))):
        if graph.initializer[i].name not in read:
            del graph.initializer[i]
    for i in reversed(range(len(graph.input))):
        if graph.input[i].name in stored:
            del graph.input[i]
