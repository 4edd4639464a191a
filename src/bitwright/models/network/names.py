"""Names of tensors in a graph and in the graphs inside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """`graph` and all graphs inside it."""
    yield graph
    for node in graph.node:
        for a in node.attribute:
            for inner in [a.g] if a.HasField("g") else a.graphs:
                yield from graphs(inner)


def taken(graph: onnx.GraphProto) -> set[str]:
    """Every name of a tensor."""
    found: set[str] = set()
    for inner in graphs(graph):
        found.update(tensor.name for tensor in inner.initializer)
        found.update(value.name for value in [*inner.input, *inner.output])
        for node in inner.node:
            found.update([*node.input, *node.output])
    return found


def unused(wanted: str, names: set[str]) -> str:
    """`wanted`, with underscores where it is one of `names`; it is one of them afterwards."""
    while wanted in names:
        wanted += "_"
    names.add(wanted)
    return wanted


def rename(graph: onnx.GraphProto, new: Mapping[str, str]) -> None:
    """Rename tensors wherever nodes, initializers and inner outputs name them; inputs and outputs of `graph` stay."""
    for inner in graphs(graph):
        for part in [*inner.initializer, *(() if inner is graph else inner.output)]:
            part.name = new.get(part.name, part.name)
        for node in inner.node:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    names[i] = new.get(name, name)
