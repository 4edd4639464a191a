"""Compares the integer network with the float one on samples: the task's measure, speed, and the drop of quality."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import onnx

from bitwright.errors import DataError, RecipeError
from bitwright.events import Event, Progress, Started
from bitwright.files.onnx import read
from bitwright.models.model import Drop, Plan
from bitwright.models.network.axes import batch_axes, opened
from bitwright.models.network.branches import fixed_inputs
from bitwright.models.network.graph import Graph, facts_of, inputs_of
from bitwright.models.network.prepare import fed
from bitwright.models.network.session import Feeds, Results, Session, latency, profile
from bitwright.models.network.sink import LayerSink
from bitwright.models.network.state import find_states
from bitwright.models.network.verify import check_answers
from bitwright.models.samples.open import Batch, Samples, open_samples
from bitwright.models.samples.preprocess import Feeding
from bitwright.models.tasks.verdict import Verdict, compare
from bitwright.recipe import Data, Recipe

LOOK = 2
"""Held-out batches that our simulation runs, too."""


def judge(
    plan: Plan, graph: Graph, sink: LayerSink, samples: tuple[Samples, Samples] | None
) -> Generator[Event, None, dict[str, Any]]:
    """The answers of both networks on held-out samples, and their speed: what the certificate says of a network."""
    written, heldout = plan.partial / plan.out.name, samples[1] if samples else None
    simulated = verdict = speed = None
    if heldout is not None:
        first = list(islice(heldout, LOOK))
        simulated = check_answers(plan, graph, sink, [batch.feeds for batch in first])
        yield Progress("certify", 2, 4, "measuring on held-out samples")
        verdict = measure(heldout, plan.recipe.data, plan.source, written).summary()
        yield Progress("certify", 3, 4, "profiling")
        speed = _speed(plan.source, written, *heldout.first())
    parts = dict(zip(("calibration", "heldout"), samples, strict=True)) if samples else None
    return {
        "data": parts and {name: part.summary for name, part in parts.items()},
        "activations": {
            name: {"scale": a.scale, "zero": a.zero, "low": a.low, "high": a.high} for name, a in sink.affines.items()
        },
        "verdict": verdict,
        "simulation": simulated,
        "speed": speed,
        "float_nodes": dict(sink.placement.floats),
    }


def measure(
    samples: Samples,
    data: Data,
    before: onnx.ModelProto | Path,
    after: onnx.ModelProto | Path,
    batches: Iterable[Batch] | None = None,
) -> Verdict:
    """Both networks on the same samples (or `batches` of them), in ONNX Runtime as a user runs them, batch by batch.

    Each carries its own state from call to call, with the errors that it has made.
    """
    sessions = [Session(model) for model in (before, after)]
    total: Verdict | None = None
    outputs: list[Results] = []
    for batch in samples if batches is None else batches:
        states = [{i: found[o] for i, o in samples.states.items()} if batch.goes_on else {} for found in outputs]
        feeds = [batch.feeds | state for state in states or ({}, {})]
        outputs = [session.run(fed) for session, fed in zip(sessions, feeds, strict=True)]
        part = compare(
            samples.task, outputs[0], outputs[1], batch.labels,
            count=len(batch.names), classes=samples.classes or (), blank=data.blank,
        )  # fmt: skip
        total = part if total is None else total + part
    if total is None:
        raise DataError("no samples to measure on", where="data.heldout", fix="Give some", key="data.heldout")
    return total


def compare_on(a: Path, b: Path, heldout: str, recipe: Recipe) -> Generator[Event, None, Verdict]:
    """The verdict on two ONNX files over the samples of `heldout`, read as `data` says."""
    if heldout == "stdlib":
        raise RecipeError(
            "ONNX networks are compared on samples", where="--heldout", fix="Give a folder or file of them",
            key="data.heldout",
        )  # fmt: skip
    read(a)
    model = read(b)
    inputs, outputs = inputs_of(model), {value.name: facts_of(value) for value in model.graph.output}
    axes = batch_axes(fed(model.graph), opened(recipe.network.batch, "none"), str(b))
    fixed = fixed_inputs({value.name: value for value in fed(model.graph)}, recipe.network.constant, str(b))
    states = find_states(inputs, outputs, recipe.network.state, str(b))
    feeding = Feeding(axes, fixed, states, Session(a).run if states else None)
    samples = open_samples(heldout, inputs, recipe.data, feeding=feeding)
    yield Started("compare", f"{len(samples):,} samples through both networks")
    return measure(samples, recipe.data, a, b)


def drop(verdict: Verdict) -> Drop:
    """The drop of the task's own measure, in points; without labels, of the agreement on the best class.

    Raises DataError where the outputs allow neither.
    """
    if verdict.top1 is not None:
        return Drop("accuracy", 100 * (verdict.top1.before.value - verdict.top1.after.value))
    found = verdict.summary()
    for before, after, name, sign in (
        ("wer_float", "wer_quantized", "word error rate", -1),
        ("map_float", "map_quantized", "mAP", 1),
    ):
        if before in found:
            change = 100 * sign * (float(found[before]) - float(found[after]))
            return Drop(name, change, verb="drops" if sign > 0 else "rises")
    if verdict.scores is not None:
        return Drop("top-1 agreement", 100 * (1 - verdict.scores.agree.value))
    raise DataError(
        "nothing to measure a drop with", where="max_drop", fix="Give labels, or leave it out", key="max_drop"
    )


def _speed(before: Path, after: Path, feeds: Feeds, size: int) -> dict[str, Any]:
    """Latency of one sample (or the smallest batch) in both networks, one thread, and where the integer one's goes."""
    pair, where = latency(before, after, feeds), profile(after, feeds)
    return {
        "batch": size, "float_ms": pair.float_ms, "integer_ms": pair.integer_ms, "ratio": pair.ratio,
        "threads": pair.threads, "runs": pair.runs, "kernels": where.counts, "conversions": where.conversions,
        "integer_share": where.integer_share, "conversion_share": where.conversion_share,
        "float_products": list(where.float_products),
    }  # fmt: skip
