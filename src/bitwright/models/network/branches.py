"""Values that never change: inputs that the recipe fixes, and the branches that are taken because of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bitwright.errors import ModelError, RecipeError
from bitwright.files.layers import PRODUCTS, attribute
from bitwright.models.network.names import graphs, rename, taken, unused

CONSTANT = "bitwright.constant."
"""Beginning of the keys under which a written network's metadata holds the values of inputs that never change."""


def fixed_inputs(
    inputs: Mapping[str, onnx.ValueInfoProto], values: Mapping[str, float], where: str
) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    """{input: its value as an array} of what the recipe says about inputs that are always the same.

    Raises RecipeError for an input that is not there, of open size, or of a type that cannot hold the number.
    """
    found = {}
    for name, number in values.items():
        if name not in inputs:
            fix = f"It has: {', '.join(inputs) or 'none'}"
            raise RecipeError(f"no input is called {name!r}", where=where, fix=fix, key="network.constant")
        kind = inputs[name].type.tensor_type
        sizes = [int(size.dim_value) for size in kind.shape.dim]
        if not all(size > 0 for size in sizes):
            raise RecipeError(f"input {name!r} has an open dimension", where=where, fix="Bind it",
                              key="network.constant")  # fmt: skip
        array = np.full(sizes, number, helper.tensor_dtype_to_np_dtype(kind.elem_type))
        if array.size and float(array.flat[0]) != float(number) and array.dtype.kind != "f":
            raise RecipeError(f"input {name!r} takes {array.dtype}, which does not hold {number}", where=where,
                              fix="Give another number", key="network.constant")  # fmt: skip
        found[name] = array
    return found


def fix(graph: onnx.GraphProto, values: Mapping[str, np.ndarray]) -> None:  # type: ignore[type-arg]
    """Let nodes read `values` instead of the inputs of these names, which nobody reads any more but which stay."""
    names = taken(graph)
    for name, array in values.items():
        new = unused(f"{name}_fixed", names)
        rename(graph, {name: new})
        graph.initializer.append(numpy_helper.from_array(array, new))


def require_open(graph: onnx.GraphProto, where: str) -> None:
    """Raise ModelError where all products lie inside of branches that an input chooses: none can be quantized there."""
    whole = [inner for inner in graphs(graph) if any(node.op_type in PRODUCTS for node in inner.node)]
    if not whole or whole[0] is graph:
        return
    holder = next(node for node in graph.node if any(a.HasField("g") for a in node.attribute))
    producers = {out: node for node in graph.node for out in node.output}
    ask, found, fed = [holder.input[0]] if holder.input else [], [], {value.name for value in graph.input}
    while ask:
        name = ask.pop()
        found += [name] if name in fed else []
        ask += list(producers[name].input) if name in producers else []
    scalar = f", which input {found[0]} chooses" if found else ""
    raise ModelError(
        f"its layers lie inside of {holder.op_type}{scalar}", where=f"{where}: {holder.name}",
        fix=f"Say which value that input always has: constant = {{ {found[0]} = VALUE }} under [network] in a recipe"
        if found else "Export it without control flow",
    )  # fmt: skip


def take_branches(graph: onnx.GraphProto) -> int:
    """Replace each If on a constant by the branch that is taken; how many."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    names, nodes, count = taken(graph), [], 0
    for node in graph.node:
        if node.op_type != "If" or node.domain or node.input[0] not in stored:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        truth = bool(numpy_helper.to_array(stored[node.input[0]]).item())
        branch = onnx.GraphProto()
        branch.CopyFrom(attribute(node, "then_branch" if truth else "else_branch", None))
        made = _flatten(branch, node, names)
        graph.initializer.extend(branch.initializer)
        nodes += made
        count += 1
    if count:
        del graph.node[:]
        graph.node.extend(nodes)
    return count


def _flatten(branch: onnx.GraphProto, node: onnx.NodeProto, names: set[str]) -> list[onnx.NodeProto]:
    """The nodes of `branch` under names that are new to the graph around it, ending in the outputs of `node`."""
    own = [tensor.name for tensor in branch.initializer]
    own += [out for inner in branch.node for out in inner.output if out]
    ends = [value.name for value in branch.output]
    new = {name: unused(f"{node.name}.{name}", names) for name in own}
    produced = {out for inner in branch.node for out in inner.output}
    copies = []
    for end, out in zip(ends, node.output, strict=True):
        if not out:
            continue
        if end in produced and ends.count(end) == 1:
            new[end] = out
        else:
            copies.append(helper.make_node("Identity", [new.get(end, end)], [out], f"{node.name}.{out}"))
    rename(branch, new)
    for inner in graphs(branch):
        for step in inner.node:
            step.name = f"{node.name}.{step.name}" if step.name else ""
    return [*branch.node, *copies]
