"""Which layers lose the most quality, and what the network loses as a whole, on calibration samples."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import onnx

from bitwright.core.measure import Error
from bitwright.events import Event, Progress, Started
from bitwright.files.layers import Placement
from bitwright.models.model import Drop, Plan
from bitwright.models.network import verdict
from bitwright.models.network.graph import Graph
from bitwright.models.network.session import Session
from bitwright.models.network.sink import LayerSink
from bitwright.models.samples.open import Batch, Samples
from bitwright.models.samples.preprocess import size_of
from bitwright.recipe import Data

LOOK = 64
"""Samples that rank the layers."""


def drop(graph: Graph, made: onnx.ModelProto, samples: Samples, data: Data, batches: Sequence[Batch]) -> Drop:
    """How far the task's measure falls on calibration samples, so that those of the verdict stay unseen."""
    return verdict.drop(verdict.measure(samples, data, graph.model, made, batches))


def rank(
    plan: Plan,
    graph: Graph,
    sink: LayerSink,
    made: onnx.ModelProto,
    batches: Sequence[Batch],
    place_without: Callable[[str], Placement],
) -> Generator[Event, None, list[str]]:
    """The plan's layers by the share of the output's error that is gone when they alone stay float, largest first.

    `place_without(name)` says where integers flow then.
    """
    feeds = [batch.feeds for batch in batches]
    feeds = feeds[: max(1, LOOK // max(1, size_of(feeds[0], graph.axes)))]
    names = [name for name in plan.items if name in sink.placement.nodes | sink.placement.small]
    before = [Session(graph.model).run(batch) for batch in feeds]

    def noise(model: Any) -> float:
        session = Session(model)
        total = 0.0
        for batch, outputs in zip(feeds, before, strict=True):
            found = session.run(batch)
            same = [name for name, y in outputs.items() if y.shape == found[name].shape]
            total += sum(Error.between(outputs[name], found[name]).noise for name in same)
        return total

    yield Started("rank", f"{len(names)} layers by what they cost")
    base, scores, network = noise(made), [], plan.recipe.network
    for done, name in enumerate(names, 1):
        placement = place_without(name)
        gone = plan.items[name].part.weight
        shared = any(item.part.weight == gone for other, item in plan.items.items() if other != name)
        weights = {w: q for w, q in sink.weights.items() if w != gone or shared}
        affines = {tensor: sink.affines[tensor] for tensor in placement.activations}
        model = plan.container.write(graph, placement, weights, affines, network)
        scores.append((name, 1 - noise(model) / max(base, 1e-30)))
        yield Progress("rank", done, len(names), name)
    return [name for name, _ in sorted(scores, key=lambda pair: -pair[1])]
