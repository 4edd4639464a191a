"""Which layers cost the most, and the fewest that must stay float for the task to lose no more than it may."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from bitwright.core.measure import Error
from bitwright.engine.integer.calibrate import Seen
from bitwright.engine.integer.plan import Plan
from bitwright.engine.integer.quantize import Quantized, quantize
from bitwright.engine.integer.verdict import Measured, drop, measure
from bitwright.events import Event, Note, Progress, Started
from bitwright.files.qdq import to_qdq
from bitwright.models.network.session import Session
from bitwright.models.samples.open import Batch

Array = npt.NDArray[Any]
LOOK = 64
"""Samples that rank the layers."""


def rank(
    plan: Plan, made: Quantized, feeds: Sequence[Mapping[str, Array]]
) -> Generator[Event, None, list[tuple[str, float]]]:
    """Layers with the share of the output's error that is gone when they alone stay float, the largest first."""
    names = [name for name in plan.items if name in made.placement.nodes]
    before = [Session(plan.graph.model).run(batch) for batch in feeds]

    def noise(model: Any) -> float:
        session = Session(model)
        total = 0.0
        for batch, outputs in zip(feeds, before, strict=True):
            found = session.run(batch)
            total += sum(Error.between(outputs[name], found[name]).noise for name in outputs)
        return total

    yield Started("rank", f"{len(names)} layers by what they cost")
    base = noise(made.model)
    scores = []
    for done, name in enumerate(names, 1):
        placement = plan.placement((name,))
        weights = {w: q for w, q in made.weights.items() if w != plan.items[name].layer.weight}
        affines = {tensor: made.activations[tensor] for tensor in placement.activations}
        scores.append((name, 1 - noise(to_qdq(plan.graph, placement, weights, affines)) / max(base, 1e-30)))
        yield Progress("rank", done, len(names), name)
    return sorted(scores, key=lambda pair: -pair[1])


def fall_back(
    plan: Plan, seen: Seen, made: Quantized, batches: Sequence[Batch], limit: float
) -> Generator[Event, None, tuple[Quantized, list[str]]]:
    """Keep the fewest of the ranked layers float with which the measure drops by at most `limit` percentage points.

    Judged on the calibration samples (`batches`), so that the verdict's samples stay unseen. Returns the network and
    the layers kept; all but one are tried before giving up, and a note says what was reached.
    """
    feeds = [batch.feeds for batch in batches]

    assert plan.samples is not None
    samples = plan.samples[0]

    def lost(candidate: Quantized) -> Measured:
        return drop(measure(samples, plan.recipe.data, plan.graph.model, candidate.model, batches))

    now = lost(made)
    if now.value <= limit:
        return made, []
    few = feeds[: max(1, LOOK // max(1, len(next(iter(feeds[0].values())))))]
    order = [name for name, _ in (yield from rank(plan, made, few))]
    low, high, most = 0, 1, len(order) - 1  # one layer at least becomes integer
    tried: dict[int, tuple[Quantized, float]] = {}

    def attempt(count: int) -> Generator[Event, None, float]:
        if count not in tried:
            candidate = yield from quantize(plan, batches, seen, tuple(order[:count]))
            tried[count] = candidate, lost(candidate).value
            plan.notes.append(f"{count} layers float: {now.name} drops by {tried[count][1]:.2f} points on calibration")
            yield Note(plan.notes[-1])
        return tried[count][1]

    if most < 1:
        plan.notes.append(f"{now.name} drops by {now.value:.2f} points, and there is one layer only")
        return made, []
    while (yield from attempt(min(high, most))) > limit and high < most:
        low, high = high, high * 2
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        if (yield from attempt(middle)) <= limit:
            high = middle
        else:
            low = middle
    best, reached = tried[high]
    if reached > limit:
        plan.notes.append(f"even with {high} layers float {now.name} drops by {reached:.2f} points (limit {limit:g})")
        yield Note(plan.notes[-1])
    return best, order[:high]
