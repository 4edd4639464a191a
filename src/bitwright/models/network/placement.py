"""Which tensors get QuantizeLinear and DequantizeLinear, so that a runtime uses integer kernels.

ONNX Runtime's CPU replaces DequantizeLinear -> op -> QuantizeLinear by an integer kernel for the operators below (its
qdq_selector_action_transformer.cc). A convolution needs the QuantizeLinear after it; Gemm and MatMul can also return
floats. Everything else computes in float, so a tensor is quantized only where integer operators on both sides gain.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import onnx

from bitwright.errors import RecipeError
from bitwright.files.layers import PRODUCTS, RECURRENT, Layer, Placement, attribute
from bitwright.models.network.graph import Graph
from bitwright.models.network.names import graphs
from bitwright.models.network.recurrent import is_plain

Target = Literal["x86", "arm", "gpu"]
TARGETS: tuple[Target, ...] = ("x86", "arm", "gpu")
MOVING = {
    "Expand", "Flatten", "Gather", "GatherElements", "MaxPool", "ReduceMax", "ReduceMin", "Reshape", "Resize", "Slice",
    "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Operators that move or choose values: the same codes come out, so one scale and zero serve both sides."""
DIRECT = {"Pad"}
"""Moving operators without a fusion rule that have 8-bit kernels: they are written on the codes themselves."""
UNARY = {"AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax"}
MIXING = {"Add", "Mul", "Concat"}
REQUESTED = "kept float on request"
SILENT = {"Shape", "Constant", "ConstantOfShape", "Range", "Size", "NonZero", "Identity", "Dropout"}


@dataclass(frozen=True)
class Unit:
    """One node, with the Relu or Clip that can be absorbed into it."""

    node: onnx.NodeProto
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    kind: str
    activation: onnx.NodeProto | None = None
    layer: Layer | None = None


def place(
    graph: Graph, target: Target = "x86", *, keep: Collection[str] = (), attention: bool = False, dynamic: bool = True
) -> Placement:
    """The placement for `target` ("x86" and "arm": ONNX Runtime's CPU kernels; "gpu": TensorRT, layer inputs only).

    Nodes named in `keep` (node or layer names) stay float. `attention` also quantizes products of two activations,
    `dynamic` False lets LSTMs compute in float.
    Raises RecipeError for an unknown target or a name in `keep` that no node has.
    """
    if target not in TARGETS:
        fix = f"Choose one of: {', '.join(TARGETS)}"
        raise RecipeError(f"no target is called {target!r}", where="target", fix=fix, key="network.target")
    names = {node.name for node in graph.model.graph.node} | {layer.name for layer in graph.recurrent}
    if unknown := sorted(set(keep) - names):
        raise RecipeError(f"no node is called {unknown[0]!r}", where="keep", fix="Names are printed by the plan")
    units, floats = _units(graph, target, frozenset(keep), attention)
    small, rounding, reasons = _recurrent(graph, target, frozenset(keep), dynamic)
    chosen = _choose(units, target, frozenset(graph.constants))
    integer = [unit for i, unit in enumerate(units) if i in chosen]
    activations: dict[str, None] = {}
    shared: list[list[str]] = []
    for unit in integer:
        activations.update(dict.fromkeys(unit.inputs))
        if (unit.kind in ("conv", "move", "direct", "unary", "mix")) and target != "gpu":
            activations.update(dict.fromkeys(unit.outputs))
        if unit.kind in ("move", "direct"):
            shared.append([*unit.inputs, *unit.outputs])
    nodes, fused = set(), {}
    for unit in integer:
        nodes.add(unit.node.name)
        if unit.layer is not None and unit.layer.flat and target != "gpu":
            nodes.add(unit.layer.nodes[1])
        if unit.activation is not None and unit.outputs[0] in activations:
            nodes.add(unit.activation.name)
            fused[unit.activation.name] = unit.node.name
    for unit in units:
        if unit not in integer:
            floats[unit.node.name] = f"{unit.node.op_type} between float operators: integers would only add conversions"
    for name in nodes:
        floats.pop(name, None)
    absorbed = {unit.activation.name for unit in integer if unit.activation is not None} - nodes
    absorbed |= {name for unit in integer if unit.layer is not None for name in unit.layer.nodes[1:]} - nodes
    for name in absorbed:
        floats[name] = "on the float output of an integer product"
    floats = {name: why for name, why in floats.items() if name not in rounding} | reasons
    graph_outputs = {value.name for value in graph.model.graph.output}
    return Placement(
        target=target,
        activations=tuple(activations),
        shared=_merge(shared),
        nodes=frozenset(nodes),
        fused=fused,
        direct=frozenset(unit.node.name for unit in integer if unit.kind == "direct"),
        small=frozenset(small),
        dynamic=frozenset(rounding),
        floats=floats,
        rounded=tuple(name for name in activations if name in graph_outputs),
    )


def _recurrent(
    graph: Graph, target: Target, keep: frozenset[str], dynamic: bool
) -> tuple[set[str], set[str], dict[str, str]]:
    """Layers of recurrent nodes that are quantized, the LSTMs that round their inputs, and why all others are float."""
    small = {layer.name for layer in graph.recurrent if target != "gpu" and not keep & {layer.name, layer.node}}
    rounding, floats = set(), {}
    for node in graph.model.graph.node:
        if node.op_type not in RECURRENT or node.domain:
            continue
        op, mine = node.op_type, [layer for layer in graph.recurrent if layer.node == node.name]
        chosen = [layer for layer in mine if layer.name in small]
        if dynamic and op == "LSTM" and len(chosen) == 2 and is_plain(node):
            rounding.add(node.name)
        elif target == "gpu":
            floats[node.name] = f"{op} is left to TensorRT"
        elif chosen:
            floats[node.name] = f"of {op} the weights alone are quantized: no integer kernel does the rest"
        else:
            floats[node.name] = REQUESTED if mine else f"{op} whose matrices are not constants of its own"
    return small, rounding, floats


def _units(graph: Graph, target: Target, keep: frozenset[str], attention: bool) -> tuple[list[Unit], dict[str, str]]:
    """The units that could compute in integers, and why all other nodes cannot."""
    layers = {layer.name: layer for layer in graph.layers}
    returned = {value.name for value in graph.model.graph.output}
    units: list[Unit] = []
    floats: dict[str, str] = {}
    for node in graph.model.graph.node:
        if not _float_values(graph, node):
            continue
        if node.name in keep:
            floats[node.name] = REQUESTED
            continue
        layer = layers.get(node.name)
        kind, reason = _kind(graph, node, layer, target, attention)
        if not kind:
            floats[node.name] = reason
            continue
        if kind in ("unary", "mix") and returned & set(node.output):
            floats[node.name] = f"{node.op_type} returns a network output, which is not rounded"
            continue
        data = {"move": 1, "direct": 1, "unary": 1, "conv": 1, "gemm": 1}.get(kind, len(node.input))
        inputs = tuple(dict.fromkeys(name for name in node.input[:data] if name and name not in graph.constants))
        activation = None
        outputs = tuple(out for out in node.output if out)
        if kind in ("conv", "gemm", "mix", "unary"):
            if layer is not None and layer.flat:
                outputs = (layer.raw,)
            readers = graph.consumers.get(outputs[0], [])
            alone = len(readers) == 1 and outputs[0] not in graph.pinned
            # A bias added after any other MatMul is a float sum: what follows it is not absorbed by the product.
            if alone and graph.clips(readers[0]) and readers[0].name not in keep:
                activation, outputs = readers[0], (readers[0].output[0],)
        units.append(Unit(node, outputs, inputs, kind, activation, layer))
    taken = {unit.activation.name for unit in units if unit.activation is not None}
    return units, {name: reason for name, reason in floats.items() if name not in taken}


def _float_values(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether `node` computes floating-point values from floating-point values (or nobody knows)."""
    if node.op_type in SILENT:
        return False
    out = [graph.values.get(name, ("float32", None))[0] for name in node.output if name]
    return any(dtype.startswith(("float", "bfloat")) for dtype in out)


def _kind(graph: Graph, node: onnx.NodeProto, layer: Layer | None, target: Target, attention: bool) -> tuple[str, str]:
    """(kind of unit, "") or ("", why the node stays float)."""
    op = node.op_type
    if node.domain not in ("", "ai.onnx"):
        return "", f"{node.domain}.{op} is not a standard operator"
    dtypes = {graph.values.get(name, ("float32", None))[0] for name in [*node.input[:1], *node.output[:1]] if name}
    if odd := sorted(dtype for dtype in dtypes if dtype != "float32" and dtype.startswith(("float", "bfloat"))):
        return "", f"{op} computes in {odd[0]}; only float32 is quantized"
    if layer is not None:
        if op == "ConvTranspose":
            return ("gemm", "") if target == "gpu" else ("", "ONNX Runtime has no integer ConvTranspose on CPUs")
        return ("conv" if op == "Conv" else "gemm"), ""
    if op in ("Conv", "ConvTranspose", "Gemm"):
        return "", f"{op} whose weight or bias is not a constant float32 tensor of plain shape"
    if op == "MatMul":
        if any(name in graph.constants for name in node.input):
            return "", "MatMul with a constant that is not a [K, N] matrix on its right"
        return ("product", "") if attention else ("", "product of two activations, kept float")
    inside = (step for inner in graphs(onnx.GraphProto(node=[node])) for step in inner.node)
    if op not in PRODUCTS and any(step.op_type in PRODUCTS for step in inside):
        return "", f"layers inside of {op}, which is decided when the network runs"
    if target == "gpu":
        return "", f"{op} is left to TensorRT"
    if op not in MOVING | DIRECT | UNARY | MIXING:
        return "", f"ONNX Runtime has no integer {op}"
    if node.input[0] in graph.constants and op not in MIXING:
        return "", f"{op} of a constant"
    if op in MOVING:
        reason = _unmovable(graph, node)
        return ("", reason) if reason else ("move", "")
    if op in DIRECT:
        return ("direct", "") if _pads_zero(graph, node) else ("", "Pad with a value other than 0")
    if op in UNARY:
        return "unary", ""
    return "mix", ""


def _unmovable(graph: Graph, node: onnx.NodeProto) -> str:
    """Why a moving operator cannot work on codes, or ''."""
    if node.op_type == "MaxPool" and len([out for out in node.output if out]) > 1:
        return "MaxPool that also returns indices"
    if node.op_type == "Resize" and attribute(node, "mode", b"nearest") != b"nearest":
        return "ONNX Runtime interpolates in float (Resize by other than nearest)"
    if node.op_type == "Resize" and attribute(node, "extrapolation_value", 0.0):
        return "Resize with an extrapolation value"
    return ""


def _pads_zero(graph: Graph, node: onnx.NodeProto) -> bool:
    if attribute(node, "mode", b"constant") != b"constant" or len(node.input) < 3 or not node.input[2]:
        return True
    return node.input[2] in graph.constants and not float(graph.constant(node.input[2]).item())


def _choose(units: list[Unit], target: Target, constants: frozenset[str]) -> set[int]:
    """Indices of the units that compute in integers: the largest set in which each gains from its neighbours."""
    layers = {i for i, unit in enumerate(units) if unit.kind in ("conv", "gemm", "product")}
    if target == "gpu":
        return layers
    chosen = set(range(len(units)))
    while True:
        wanted = {name for i in layers for name in units[i].inputs}
        for i in sorted(chosen - layers, reverse=True):
            if wanted & set(units[i].outputs):
                wanted.update(units[i].inputs)
        kept, have = set(layers), {name for i in layers for name in units[i].inputs}
        for i, unit in enumerate(units):
            if i in layers:
                if unit.layer is None or unit.layer.op != "MatMul" or unit.layer.bias is None or unit.layer.flat:
                    have.update(unit.outputs)
                continue
            if i not in chosen:
                continue
            useful = bool(wanted & set(unit.outputs))
            ready = bool(have & set(unit.inputs))
            # Codes that exist are moved as codes (a quarter of the bytes); arithmetic needs a reader of codes too.
            if (unit.kind in ("move", "direct") and (useful or _hard(unit, units, kept))) or (useful and ready):
                kept.add(i)
                have.update(unit.outputs)
        if kept == chosen | layers:
            return kept
        chosen = kept


def _hard(unit: Unit, units: list[Unit], kept: set[int]) -> bool:
    """Whether the input of `unit` exists as codes in any case: not every integer product writes any."""
    return any(set(unit.inputs) & set(units[i].outputs) for i in kept if units[i].kind not in ("gemm", "product"))


def _merge(groups: list[list[str]]) -> tuple[tuple[str, ...], ...]:
    """Groups that overlap, united; each in order of appearance."""
    merged: list[list[str]] = []
    for group in groups:
        touching = [other for other in merged if set(other) & set(group)]
        united = list(dict.fromkeys([name for other in touching for name in other] + group))
        merged = [other for other in merged if other not in touching] + [united]
    return tuple(tuple(group) for group in merged)
