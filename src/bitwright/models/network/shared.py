"""Weights that several layers share: stored once, solved once, on the inputs of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx

from bitwright.core.observe import Affine
from bitwright.errors import RecipeError
from bitwright.files.layers import Layer, Placement
from bitwright.models.model import Item
from bitwright.models.network.graph import Graph
from bitwright.models.network.moments import Record
from bitwright.models.network.recurrent import operands, rows_of
from bitwright.models.network.session import Feeds, Session
from bitwright.models.network.unfold import multiply, unfold


class Use(NamedTuple):
    """A later layer that takes the codes of the first; `affine` rounds its input (None where that stays float).

    `record` is of its input in the float network, which loses by rounding alone; None where nobody asked.
    """

    layer: Layer
    affine: Affine | None
    record: Record | None


def uses(items: Mapping[str, Item]) -> dict[str, list[Item]]:
    """{weight: its items, in the order of the graph} of every weight."""
    found: dict[str, list[Item]] = {}
    for item in items.values():
        found.setdefault(item.part.weight, []).append(item)
    return found


def turned(layers: Sequence[Layer]) -> dict[str, str]:
    """{layer: why it stays float} of layers that read a weight otherwise than the first layer of it does.

    As in autoencoders whose decoder is the encoder's transpose: rows of the one are columns of the other, and integer
    kernels want one scale per row.
    """
    firsts: dict[str, Layer] = {}
    found = {}
    for layer in layers:
        first = firsts.setdefault(layer.weight, layer)
        if (first.rows, first.axis, first.groups) != (layer.rows, layer.axis, layer.groups):
            found[layer.name] = f"the weight's rows are those of {first.name}, which reads it the other way round"
    return found


def require_alike(items: Mapping[str, Item], formats: bool = True) -> None:
    """Raise RecipeError where two layers of one weight are to be quantized differently; `formats` are final."""
    for weight, (first, *others) in uses(items).items():
        for other in others:
            same = not formats or other.format == first.format
            if not same or (other.method.name, other.options) != (first.method.name, first.options):
                raise RecipeError(
                    f"{first.name} and {other.name} share the weight {weight}, and rules quantize them differently",
                    where=other.name, fix=f"Match the weight, {weight}", key="rules",
                )  # fmt: skip


def later_uses(
    graph: Graph,
    items: Mapping[str, Item],
    placement: Placement,
    affines: Mapping[str, Affine],
    feeds: Sequence[Feeds],
    passages: Sequence[int],
    corrected: bool,
) -> dict[str, list[Use]]:
    """{weight: all uses but the first} of every weight that several items share, with their records where one asks.

    The inputs are those of the float network: when the codes are chosen, what the quantized one feeds later layers
    follows from them. `corrected` layers ask whatever their method needs. Methods that ask for samples see those of the
    first use only.
    """
    shared = {weight: found for weight, found in uses(items).items() if len(found) > 1}
    asking = [i.part for found in shared.values() for i in found[1:] if corrected or i.method.needs == "moments"]
    asking = [layer for layer in asking if layer.op != "ConvTranspose"]
    nodes = {node.name: node for node in graph.model.graph.node}
    records: dict[str, Record] = {}
    if asking and feeds:
        names = list(dict.fromkeys(name for layer in asking for name in _seen(layer, nodes[layer.node])))
        held = {name: graph.constant(name) for name in names if name in graph.constants}
        inner = [name for name in names if name not in graph.inputs and name not in held]
        session = Session(graph.with_outputs(inner), optimize=False, where=graph.where)
        records = {layer.name: Record(layer, passages) for layer in asking}
        for i, batch in enumerate(feeds):
            values = {**held, **batch, **(session.run(batch, inner) if inner else {})}
            for layer in asking:
                affine = rounding(layer, placement, affines)
                x = rows_of(layer, nodes[layer.node], values) if layer.recurrent else np.asarray(values[layer.input])
                x_hat = x if affine is None else np.asarray(affine.fake(x))
                rows = unfold(layer, x - x_hat) if corrected else None
                lost = [] if rows is None else [multiply(layer, graph.matrix(layer), rows)]
                records[layer.name].add(i, x_hat, lost)
    return {
        weight: [Use(i.part, rounding(i.part, placement, affines), records.get(i.name)) for i in found[1:]]
        for weight, found in shared.items()
    }


def _seen(layer: Layer, node: onnx.NodeProto) -> list[str]:
    """The tensors that say what a layer multiplies."""
    return [name for name in operands(layer, node) if name] if layer.recurrent else [layer.input]


def rounding(layer: Layer, placement: Placement, affines: Mapping[str, Affine]) -> Affine | None:
    """What rounds the input of `layer`, where it computes in integers."""
    return affines.get(layer.input) if layer.name in placement.nodes else None
