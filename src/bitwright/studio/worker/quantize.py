"""A run of the workbench: the engine's events as they come, and what is shown of the certificate at the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from bitwright.engine.report import certificate_path
from bitwright.events import Event, Finished, Note, Row, Started
from bitwright.libraries import load
from bitwright.studio.worker.jobs import network_recipe, recipe_of
from bitwright.studio.worker.summary import summary


def quantize(
    model: str, out: str, recipe: dict[str, Any], bundled: str | None = None, samples: str | None = None
) -> Iterator[Event | dict[str, Any]]:
    """Quantize `model` into `out` (a folder, or a .onnx file), and end with a "summary" event.

    Where an earlier attempt was interrupted, a language model goes on from its journal (rows of finished matrices are
    told again), and an ONNX network starts again. `bundled` names the demonstration that a model belongs to, whose data
    is written below `samples`.
    """
    target = Path(out)
    if target.exists():  # everything was done but for telling so
        certificate = json.loads(certificate_path(target).read_text("utf-8"))
        yield from _finish(Finished(out, certificate))
        return
    _forget_peak()
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".onnx":
        events = _network(Path(model), target, recipe, bundled, samples)
    else:
        events = _language(Path(model), target, recipe, bundled)
    for event in events:
        if isinstance(event, Finished):
            yield from _finish(event)
        else:
            yield event


def _finish(event: Finished) -> Iterator[Event | dict[str, Any]]:
    certificate = event.certificate
    told = event.json()
    told["certificate"].pop("rows")  # each was told when it was written
    yield told
    yield {"event": "summary", "summary": summary(certificate)}


def _network(
    source: Path, out: Path, recipe: dict[str, Any], bundled: str | None, samples: str | None
) -> Iterator[Event]:
    from bitwright.engine.integer import plan as networks
    from bitwright.engine.integer.run import run

    made = network_recipe(recipe, bundled, Path(samples) / bundled if bundled and samples else None)
    yield from run(networks.make(source, out, made))


def _language(source: Path, out: Path, recipe: dict[str, Any], bundled: str | None) -> Iterator[Event]:
    load()
    from bitwright.engine import plan as planning
    from bitwright.engine.run import job_hash, run
    from bitwright.engine.text import prepare

    plan = planning.make(source, out, recipe_of(recipe, bundled))
    text = yield from prepare(plan)
    written = _journal(plan.partial)
    if written and written[0].get("job") != job_hash(plan, text):
        # Its bytes would not be those of one uninterrupted run.
        shutil.rmtree(plan.partial)
        written = []
        yield Note("started again: the model, the version or the number of threads has changed since it was stopped")
    for event in run(plan, text):
        yield event
        if isinstance(event, Started) and event.resumed:
            for entry in written:
                if entry.get("row"):
                    yield Row(**{**entry["row"], "notes": tuple(entry["row"]["notes"])})


def _journal(partial: Path) -> list[dict[str, Any]]:
    """The lines of an interrupted run's journal that can be read."""
    from bitwright.engine.journal import NAME

    found = []
    with suppress(FileNotFoundError):
        for line in (partial / NAME).read_bytes().splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
    return [entry for entry in found if isinstance(entry, dict)]


def _forget_peak() -> None:
    """Count this process's peak memory from now on: the certificate tells that of this run, not of an earlier one."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
