"""Runs a stage: its output is written, certified and published, reported as a stream of events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any

import bitwright
from bitwright import machine
from bitwright.engine.journal import Journal
from bitwright.engine.stages.certify import certify, publish
from bitwright.engine.stages.plan import require_out
from bitwright.engine.work import at_work
from bitwright.events import Event, Finished, Started
from bitwright.models.stage import Stage


def run(stage: Stage, *, restart: bool = False) -> Iterator[Event]:
    """Do the work of a stage, certify and rename; yields events and ends with `Finished`.

    Stop the iteration at any event, or kill the process at any moment: running the same stage again continues, and the
    finished bytes are those of an uninterrupted run. Raises what `engine.run.run` raises.
    """
    require_out(stage)
    machine.enforce(stage.ceiling)
    yield from at_work(stage, stage.read_data, partial(job_hash, stage), partial(_work, stage), restart)


def _work(stage: Stage, data: Any, journal: Journal) -> Generator[Event, None, Callable[[], Finished]]:
    """Do it and certify; returns what gives the output its final name."""
    stage.create()
    for name, entry in list(journal.done.items()):
        if not stage.intact(entry["sums"]):
            del journal.done[name]  # its bytes are no longer what was written
    yield Started(stage.name, stage.words, resumed=sum(len(entry["sums"]) for entry in journal.done.values()))
    yield from stage.work(data, journal)
    machine.enforce(stage.ceiling)  # libraries and threads have come since
    certificate = yield from certify(stage, data, journal)
    return partial(publish, stage, certificate)


def job_hash(stage: Stage, data: Any) -> str:
    """SHA-256 of what decides the output's bytes: settings, source, data, version."""
    facts = {
        "version": bitwright.__version__,
        "settings": stage.asked,
        "model": stage.identity(),
        "data": stage.data_hash(data),
    }
    return hashlib.sha256(json.dumps(facts, default=str, sort_keys=True).encode()).hexdigest()
