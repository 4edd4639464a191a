"""The only loop: a plan becomes files, told as a stream of events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

import bitwright
from bitwright.engine import certify, machine
from bitwright.engine.calibration import Calibration, group
from bitwright.engine.journal import Journal
from bitwright.engine.plan import Plan, require_out
from bitwright.engine.text import Text
from bitwright.engine.writer import Writer
from bitwright.events import Event, Finished, Progress, Started
from bitwright.files.folder import copy_sidecars
from bitwright.models.language.blocks import SPILL, release


def run(plan: Plan, text: Text | None = None) -> Iterator[Event]:
    """Quantize, certify and rename; yields events and ends with `Finished`.

    `text` holds the calibration and held-out windows (None for a data-free plan without a verdict on text). Stop the
    iteration at any event, or kill the process at any moment: running the same plan again goes on, and the finished
    bytes are those of an uninterrupted run. Raises TensorError for weights that are not finite, ResourceError,
    CertificationError.
    """
    require_out(plan)
    machine.enforce(plan.ceiling)
    plan.partial.mkdir(parents=True, exist_ok=True)
    journal = Journal(plan.partial, job_hash(plan, text))
    for left in (*plan.partial.glob(f"{SPILL}*"), *plan.partial.glob("*.tmp")):
        left.unlink()  # a killed run could not
    plan.layout.create(plan.partial)
    _distrust(plan, journal)
    yield Started("quantize", f"{len(plan.items)} matrices", resumed=len(journal.done))
    writer = Writer(plan, journal)
    yield from _counted(plan, _write_all(plan, text, writer))
    release()
    machine.enforce(plan.ceiling)  # libraries and threads have come since
    copy_sidecars(plan.source, plan.partial)
    certify.write_config(plan)
    certificate: dict[str, Any] = yield from certify.certify(plan, writer.rows, writer.sums, text)
    certify.publish(plan)
    yield Finished(str(plan.out), certificate)


def job_hash(plan: Plan, text: Text | None) -> str:
    """SHA-256 of what decides the output's bytes: recipe, source tensors, calibration, layout, version, dtype."""
    source = sorted(
        (e.name, str(e.dtype), e.shape, e.path.stat().st_size) for e in plan.arch.checkpoint.tensors.values()
    )
    facts = {
        "version": bitwright.__version__,
        "recipe": plan.recipe.hash,
        "source": source,
        "changed": sorted(p.stat().st_mtime_ns for p in plan.arch.checkpoint.files),
        "layout": {name: size for name, (_, size) in plan.layout.files.items()},
        "calibration": None if text is None else text.calibration_hash,
        # Sums of a matrix product are taken in another order by another number of threads.
        "arithmetic": [plan.device, str(machine.calibration_dtype(plan.device)), torch.get_num_threads()],
    }
    return hashlib.sha256(json.dumps(facts, default=str, sort_keys=True).encode()).hexdigest()


def _distrust(plan: Plan, journal: Journal) -> None:
    """Forget journal lines whose bytes are no longer what was written."""
    for name, entry in list(journal.done.items()):
        if any(plan.layout.checksum(plan.partial, part) != crc for part, crc in entry["sums"].items()):
            del journal.done[name]


def _counted(plan: Plan, events: Iterator[Event]) -> Iterator[Event]:
    """The same events; each `Progress` comes in with its own bytes and goes out with the sum and the total."""
    total = plan.source_bytes
    if plan.calibrated:
        total += sum(e.size for block in range(plan.arch.count) for e in plan.arch.tensors_of(block))
    done = 0.0
    for event in events:
        if isinstance(event, Progress):
            done += event.done
            event = replace(event, done=min(done, total), total=total)
        yield event


def _write_all(plan: Plan, text: Text | None, writer: Writer) -> Iterator[Event]:
    """All tensors, those outside the blocks first; each `Progress` counts its own source bytes."""
    walk = Calibration(plan, text) if text is not None and plan.uses_text else None
    for block in [None, *range(plan.arch.count)]:
        entries = plan.arch.tensors_of(block)
        if block is None:
            entries += [plan.arch.checkpoint.tensors[name] for name in plan.arch.outside]
        todo = [plan.items[e.name] for e in entries if e.name in plan.items]
        if all(writer.finished(item.matrix.name) for item in todo):
            todo = []
        recorder = None
        if walk is not None and block is not None:
            recorder = yield from walk.through(block, [item.matrix for item in todo])
        for entry in entries:
            if entry in plan.copies and not writer.finished(f"copy:{entry.name}"):
                writer.copy(entry.name)
            if entry.name not in plan.items or writer.finished(entry.name):
                yield Progress("quantize", entry.size, 0, entry.name)
        for items, found in group(plan, todo, recorder, writer.finished):
            left = [item.matrix.name for item in items if not writer.finished(item.matrix.name)]
            yield from writer.quantize(items, found)
            size = sum(plan.arch.checkpoint.entry(name).size for name in left)
            yield Progress("quantize", size, 0, items[0].matrix.name)
            del found  # the next factor is computed while this name would still hold the last
