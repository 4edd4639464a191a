"""Compares the integer network with the float one on samples: the task's measure, speed, and the drop of quality."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bitwright.core.observe import Affine, Histogram
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
from bitwright.models.samples.preprocess import Feeding, size_of
from bitwright.models.tasks.boxes import SURE, sure, told
from bitwright.models.tasks.heads import Head
from bitwright.models.tasks.verdict import Verdict, compare
from bitwright.recipe import Data, Recipe
from bitwright.words import titles

LOOK = 2
"""Held-out batches that our simulation runs, too."""


def judge(
    plan: Plan,
    graph: Graph,
    sink: LayerSink,
    samples: tuple[Samples, ...] | None,
    seen: Mapping[str, Histogram],
) -> Generator[Event, None, dict[str, Any]]:
    """The answers of both networks on held-out samples, and their speed: what the certificate says of a network.

    `seen` is what calibration saw of each tensor that is rounded.
    """
    written, heldout = plan.partial / plan.out.name, samples[1] if samples else None
    simulated = verdict = speed = None
    pictures = None
    if heldout is not None:
        first = list(islice(heldout, LOOK))
        simulated = check_answers(plan, graph, sink, [batch.feeds for batch in first])
        yield Progress("certify", 2, 4, "measuring on held-out samples")
        verdict = measure(heldout, plan.recipe.data, plan.source, written).summary()
        others = [measure(part, plan.recipe.data, plan.source, written).summary() for part in (samples or ())[2:]]
        called = titles(plan.recipe.data.heldout or [])[1:]
        if others:
            verdict["others"] = [{"source": name, **part} for name, part in zip(called, others, strict=True)]
        yield Progress("certify", 3, 4, "profiling")
        speed = _speed(plan.source, written, *heldout.first())
        pictures = _pictures(heldout, plan.recipe.data, plan.source, written)
    names = ["calibration", "heldout", *(f"heldout {i}" for i in range(2, len(samples or ())))]
    parts = dict(zip(names, samples, strict=True)) if samples else None
    return {
        "data": parts and {name: part.summary for name, part in parts.items()},
        "activations": {
            name: {"scale": a.scale, "zero": a.zero, "low": a.low, "high": a.high, **_usage(seen.get(name), a)}
            for name, a in sink.affines.items()
        },
        "verdict": verdict,
        "simulation": simulated,
        "pictures": pictures,
        "speed": speed,
        "float_nodes": dict(sink.placement.floats),
    }


def _usage(seen: Histogram | None, affine: Affine) -> dict[str, Any]:
    """Levels there and used, and the entropy in bits per value of a rounded tensor, as the samples had it."""
    if seen is None:
        return {}
    usage = seen.usage(affine)
    return {"levels": usage.levels, "levels_used": usage.used, "entropy": usage.entropy}


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
        part = _compared(samples, data, outputs[0], outputs[1], batch.labels, len(batch.names))
        total = part if total is None else total + part
    if total is None:
        raise DataError("no samples to measure on", where="data.heldout", fix="Give some", key="data.heldout")
    return total.verified(samples.pairs) if samples.paired else total


def rehearse(samples: Samples, data: Data, source: Path) -> None:
    """The float network on the smallest batch, compared with itself: raises what measuring would end with."""
    feeds, _ = samples.first()
    count = size_of(feeds, samples.axes)
    outputs = Session(source).run(feeds)
    if all(np.isfinite(x).all() for x in outputs.values() if np.asarray(x).dtype.kind == "f"):  # else the run names it
        _compared(samples, data, outputs, outputs, samples.labels and samples.labels[:count], count)
    if samples.paired:
        _ = samples.pairs  # made here, so that too few of them are found here
    if data.detection.pictures and samples.task == "detect" and samples.sides is None:
        raise RecipeError(
            f"{samples.name} holds no pictures to show", where="data.detection.pictures",
            fix="Leave it out, or give a COCO folder", key="data.detection.pictures",
        )  # fmt: skip


def _compared(
    samples: Samples, data: Data, before: Results, after: Results, labels: Sequence[Any] | None, count: int
) -> Verdict:
    """One batch of outputs of both networks, as the samples' task compares them."""
    return compare(
        samples.task, before, after, labels, count=count, classes=samples.classes or (), blank=data.blank,
        output=data.match.output if samples.task == "match" else None, head=_head(samples, data),
    )  # fmt: skip


def _head(samples: Samples, data: Data) -> Head:
    """How a detector's outputs are read on these samples."""
    return Head(data.detection, len(samples.classes) if samples.classes else None, samples.sides)


def _pictures(samples: Samples, data: Data, before: Path, after: Path) -> dict[str, Any] | None:
    """The first samples as pictures, with the true boxes and the sure ones of both networks, if the recipe asks so."""
    most = data.detection.pictures if samples.task == "detect" else 0
    if not most:
        return None
    sessions, head = [Session(path) for path in (before, after)], _head(samples, data)
    names = samples.classes or ()
    found: list[dict[str, Any]] = []
    for batch in samples:
        count = min(len(batch.names), most - len(found))
        both = [head.read(session.run(batch.feeds), len(batch.names)) for session in sessions]
        for i, (a, b) in enumerate(zip(*(map(sure, boxes[:count]) for boxes in both), strict=True)):
            jpeg, (height, width) = samples.picture(batch.feeds, i)
            truth = None if batch.labels is None else told(batch.labels[i].boxes, batch.labels[i].classes, names)
            boxes = {
                "truth": truth,
                **{key: told(x.boxes, x.classes, names, x.scores) for key, x in (("float", a), ("quantized", b))},
            }
            found.append({"name": batch.names[i], "jpeg": jpeg, "height": height, "width": width, **boxes})
        if len(found) == most:
            break
    return {"score": SURE, "shown": found}


def compare_on(a: Path, b: Path, heldout: str, recipe: Recipe) -> Generator[Event, None, Verdict]:
    """The verdict on two ONNX files over the samples of `heldout`, read as `data` says."""
    if heldout == "stdlib":
        raise RecipeError(
            "ONNX networks are compared on samples", where="--heldout", fix="Give a folder or file of them",
            key="data.heldout",
        )  # fmt: skip
    read(a)
    samples = samples_for(a, b, heldout, recipe)
    yield Started("compare", f"{len(samples):,} samples through both networks")
    return measure(samples, recipe.data, a, b)


def samples_for(a: Path, b: Path, source: str, recipe: Recipe) -> Samples:
    """The samples of a source as the network `b` takes them, read as `recipe` says; `a` makes what is carried on."""
    model = read(b)
    inputs, outputs = inputs_of(model), {value.name: facts_of(value) for value in model.graph.output}
    axes = batch_axes(fed(model.graph), opened(recipe.network.batch, "none"), str(b))
    fixed = fixed_inputs({value.name: value for value in fed(model.graph)}, recipe.network.constant, str(b))
    states = find_states(inputs, outputs, recipe.network.state, str(b))
    feeding = Feeding(axes, fixed, states, Session(a).run if states else None)
    return open_samples(source, inputs, recipe.data, feeding=feeding)


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
        ("match_float", "match_quantized", "verification accuracy", 1),
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
