"""Runs a plan: it becomes files, reported as a stream of events."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any

import bitwright
from bitwright import machine
from bitwright.engine.budget import spend
from bitwright.engine.certify import certify, publish
from bitwright.engine.journal import Journal
from bitwright.engine.plan import require_out
from bitwright.engine.sensitivity import fall_back
from bitwright.engine.work import at_work
from bitwright.engine.write import Writer
from bitwright.events import Event, Finished, Note, Started
from bitwright.models.model import Plan
from bitwright.models.recovery import RECOVERY
from bitwright.words import plural


def run(plan: Plan, *, restart: bool = False) -> Iterator[Event]:
    """Quantize, certify and rename; yields events and ends with `Finished`.

    Stop the iteration at any event, or kill the process at any moment: running the same plan again continues, and the
    finished bytes are those of an uninterrupted run. Work of another recipe, model or version in the same place is an
    error, or with `restart` removed, with a note. Where the input turns out to be at fault, its unfinished work goes:
    the corrected call begins anew. Where a library is missing, only what holds nothing finished goes. Raises
    TensorError for weights that are not finite, DataError, ResourceError, CertificationError, and RecipeError where
    another process works on the same output.
    """
    require_out(plan)
    machine.enforce(plan.ceiling)
    yield from at_work(
        plan, partial(plan.model.read_data, plan), partial(job_hash, plan), partial(_work, plan), restart
    )


def _work(plan: Plan, data: Any, journal: Journal) -> Generator[Event, None, Callable[[], Finished]]:
    """Quantize and certify; returns what gives the output its final name."""
    if plan.recipe.budget is not None:
        plan = yield from spend(plan, data, journal)
    writer = Writer(plan, journal)
    parts = plan.model.kind.words.parts
    yield Started("quantize", f"{len(plan.items)} {parts}", resumed=writer.written)
    yield from writer.rows.values()
    yield from writer.run(data)
    if plan.recipe.max_drop is not None:
        writer = yield from fall_back(writer, data)
    yield from _tell_recovered(writer)
    machine.enforce(plan.ceiling)  # libraries and threads have come since
    certificate = yield from certify(writer, data)
    return partial(publish, writer.plan, certificate)


def _tell_recovered(writer: Writer) -> Iterator[Note]:
    """Say how many matrices have the codes that they were decoded from."""
    plan, words = writer.plan, writer.plan.model.kind.words
    found = Counter(item.lattice for item in plan.items.values() if item.method is RECOVERY)
    for form, count in found.items():
        lie = "lies" if count == 1 else "lie"
        note = f"{plural(count, words.part, words.parts)} already {lie} on the {form}: written without loss"
        plan.notes.append(note)
        yield Note(note)


def job_hash(plan: Plan, data: Any) -> str:
    """SHA-256 of what decides the output's bytes: recipe, source, calibration, version."""
    facts = {
        "version": bitwright.__version__,
        "recipe": plan.recipe.hash,
        "model": plan.model.identity(),
        "calibration": plan.model.data_hash(data),
        "effort": plan.effort.summary(),
    }
    return hashlib.sha256(json.dumps(facts, default=str, sort_keys=True).encode()).hexdigest()
