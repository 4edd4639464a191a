"""From a plan to an integer network in memory: rewrite, observe, then every layer in the order of the graph."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from bitwright.core.observe import Affine
from bitwright.core.qtensor import QTensor
from bitwright.engine.integer.calibrate import Seen, observe, quantizers
from bitwright.engine.integer.plan import Item, Plan
from bitwright.engine.integer.rewrite import absorb_axes, absorb_biases, channel_axes, rescale
from bitwright.engine.integer.solve import row_of, solve
from bitwright.errors import RecipeError
from bitwright.events import Event, Progress, Row, Started
from bitwright.files.nbits import matmul_nbits
from bitwright.files.onnx import Placement, from_matrix
from bitwright.files.qdq import to_qdq
from bitwright.models.network.walk import Walk
from bitwright.models.samples.open import Batch

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class Quantized:
    """An integer network, as parts and as the ONNX model they make; `twin` holds decoded weights and new biases."""

    model: onnx.ModelProto
    placement: Placement
    weights: dict[str, QTensor]
    activations: dict[str, Affine]
    twin: dict[str, Array]
    rows: list[Row]


def prepare(plan: Plan, feeds: Sequence[Feeds]) -> Generator[Event, None, Seen]:
    """Rewrite the plan's graph as the recipe says, and observe its activations; returns what was seen."""
    network, graph = plan.recipe.network, plan.graph
    yield Started("calibrate", f"{sum(len(next(iter(f.values()))) for f in feeds)} samples")
    axes = channel_axes(graph, network.smooth, network.equalize)
    if axes:
        first = Seen()
        yield from observe(graph, feeds, [], axes, first)
        bits = {name: item.format.bits for name, item in plan.items.items()}
        plan.notes += rescale(graph, first.channels, network.smooth, network.equalize, bits)
    if network.absorb:
        again = Seen()
        yield from observe(graph, feeds, [], absorb_axes(graph), again)
        plan.notes += absorb_biases(graph, again.channels)
    # Every layer whose bias may be corrected gets one; a product without one would need a node more.
    for layer in graph.layers:
        if layer.name in plan.items and layer.bias is None and layer.op != "MatMul" and network.bias != "none":
            graph.set_bias(layer, np.zeros(layer.outputs, np.float32))
    seen = Seen()
    placement = plan.placement() if not plan.weights_only else None
    tensors = placement.activations if placement else [item.layer.input for item in plan.items.values()]
    yield from observe(graph, feeds, tensors, {}, seen)
    return seen


def quantize(
    plan: Plan, batches: Sequence[Batch], seen: Seen, keep: tuple[str, ...] = ()
) -> Generator[Event, None, Quantized]:
    """Quantize the prepared network of `plan`; the layers of `keep` stay float besides those of the recipe."""
    network = plan.recipe.network
    if plan.weights_only:
        placement, affines = Placement(network.target, ()), {}
    else:
        placement = plan.placement(keep)
        affines = quantizers(placement, seen.values, network)
    items = {name: item for name, item in plan.items.items() if name not in keep}
    yield Started("quantize", f"{len(items)} layers")
    if any(item.settings.method == "lsq" for item in items.values()):
        return (yield from _train(plan, batches, placement, items))
    return (yield from _solve(plan, batches, placement, affines, items))


def _solve(
    plan: Plan, batches: Sequence[Batch], placement: Placement, affines: dict[str, Affine], items: Mapping[str, Item]
) -> Generator[Event, None, Quantized]:
    """Layer after layer, each with what the layers before it made of the samples."""
    graph, network = plan.graph, plan.recipe.network
    walk = Walk(graph, placement, affines, [batch.feeds for batch in batches], plan.out.parent)
    weights: dict[str, QTensor] = {}
    biases: dict[str, Array] = {}
    rows: list[Row] = []
    for step in walk.steps():
        item = items.get(step.layer.name)
        if item is None:
            continue
        affine = affines.get(step.layer.input) if step.layer.name in placement.nodes else None
        solved = solve(graph, step, item.settings, item.format, network, affine)
        weights[step.layer.weight] = solved.weight
        if step.layer.bias is not None:
            biases[step.layer.name] = solved.bias
        rows.append(solved.row)
        yield solved.row
        yield Progress("quantize", len(rows), len(items), step.layer.name)
    return _finish(plan, placement, affines, weights, biases, rows)


def _train(
    plan: Plan, batches: Sequence[Batch], placement: Placement, items: Mapping[str, Item]
) -> Generator[Event, None, Quantized]:
    """All layers together, by learned step sizes (`models.network.finetune`); one width for the whole network."""
    from bitwright.models.network import finetune

    graph, training = plan.graph, plan.recipe.network.training
    widths = {item.format.bits for item in items.values()}
    if len(widths) > 1 or any(item.settings.method != "lsq" for item in items.values()):
        raise RecipeError(
            "learned steps train the whole network at one width",
            where="method lsq",
            fix="Use it for all layers or none",
        )
    bits = widths.pop()
    labels = {batch.labels is not None and all(isinstance(n, int) for n in batch.labels) for batch in batches}
    lessons = [(b.feeds, np.array(b.labels, np.int64) if labels == {True} else None) for b in batches]
    losses: list[float] = []
    made = finetune.finetune(
        graph, placement, lessons, bits,
        epochs=training.epochs, rate=training.rate, penalty=training.penalty, report=lambda e: losses.append(e.loss),
    )  # fmt: skip
    rows = []
    for item in items.values():
        q, matrix = made.weights[item.layer.weight], graph.matrix(item.layer)
        rows.append(row_of(item.layer.name, q, "lsq", matrix, plan.recipe.network))
        yield rows[-1]
    yield Progress("quantize", len(items), len(items), f"loss {losses[0]:.4f} to {losses[-1]:.4f}")
    return _finish(plan, placement, dict(made.activations), dict(made.weights), dict(made.biases), rows)


def _finish(
    plan: Plan,
    placement: Placement,
    affines: dict[str, Affine],
    weights: dict[str, QTensor],
    biases: dict[str, Array],
    rows: list[Row],
) -> Quantized:
    """The ONNX model of these parts, and what the simulation needs of them."""
    graph = plan.graph
    layers = {layer.weight: layer for layer in graph.layers}
    twin = {name: from_matrix(layers[name], np.asarray(q.decode())) for name, q in weights.items()}
    twin |= {layer.bias: biases[layer.name] for layer in graph.layers if layer.bias and layer.name in biases}
    return Quantized(_write(plan, placement, weights, affines, biases), placement, weights, affines, twin, rows)


def _write(
    plan: Plan, placement: Placement, weights: dict[str, QTensor], affines: dict[str, Affine], biases: dict[str, Array]
) -> onnx.ModelProto:
    """The ONNX model; the new biases stand in the graph only while it is written."""
    graph, network = plan.graph, plan.recipe.network
    before = {name: graph.bias(graph.layer(name)) for name in biases}
    try:
        for name, bias in biases.items():
            graph.set_bias(graph.layer(name), bias)
        if plan.weights_only:
            return matmul_nbits(graph, weights)
        return to_qdq(graph, placement, weights, affines, storage=network.storage, float_bias=network.target == "gpu")
    finally:
        for name, bias in before.items():
            graph.set_bias(graph.layer(name), bias)
