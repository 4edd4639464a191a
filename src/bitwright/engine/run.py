"""Runs a plan: it becomes files, reported as a stream of events."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import bitwright
from bitwright import machine
from bitwright.engine.budget import spend
from bitwright.engine.certify import certify, publish
from bitwright.engine.journal import NAME, Journal
from bitwright.engine.partial import clear, hold
from bitwright.engine.plan import require_out
from bitwright.engine.sensitivity import fall_back
from bitwright.engine.write import Writer
from bitwright.errors import InputError
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
    made = [folder for folder in (plan.partial, *plan.out.parents) if not folder.exists()]
    with hold(plan.partial):
        yield from _run(plan, restart, made)


def _run(plan: Plan, restart: bool, made: list[Path]) -> Iterator[Event]:
    """See `run`; `made` are the folders that were made for it."""
    (plan.partial / NAME).touch()
    journal: Journal | None = None
    try:
        data = yield from plan.model.read_data(plan)
        journal = yield from _open_journal(plan, data, restart)
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
    except (InputError, ModuleNotFoundError) as error:
        if journal is None:  # what is there may be of an earlier run whose data are gone for a while
            _remove(plan.partial, made, whole=plan.partial in made)
        elif isinstance(error, InputError) or not journal.done:
            _remove(plan.partial, made, whole=True)
        raise
    publish(writer.plan, certificate)
    yield Finished(str(writer.plan.model.written(writer.plan)), certificate)


def _tell_recovered(writer: Writer) -> Iterator[Note]:
    """Say how many matrices have the codes that they were decoded from."""
    plan, words = writer.plan, writer.plan.model.kind.words
    found = Counter(item.lattice for item in plan.items.values() if item.method is RECOVERY)
    for form, count in found.items():
        lie = "lies" if count == 1 else "lie"
        note = f"{plural(count, words.part, words.parts)} already {lie} on the {form}: written without loss"
        plan.notes.append(note)
        yield Note(note)


def _remove(partial: Path, made: list[Path], whole: bool) -> None:
    """Take the partial output away where `whole`, and the folders that were made for it."""
    if whole:
        shutil.rmtree(partial, ignore_errors=True)
    for folder in made:
        with suppress(OSError):  # it is gone, or holds what is not ours
            folder.rmdir()


def _open_journal(plan: Plan, data: Any, restart: bool) -> Generator[Event, None, Journal]:
    """The journal of this job; see `run` for `restart`."""
    job = job_hash(plan, data)
    if not Journal.belongs(plan.partial, job) and (restart or Journal.empty(plan.partial)):
        if not Journal.empty(plan.partial):
            yield Note(
                "started again: the model, the version or the number of threads has changed since it was stopped"
            )
        clear(plan.partial)
    return Journal(plan.partial, job)


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
