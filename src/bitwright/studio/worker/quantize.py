"""A run of the workbench: the engine's events as they come, and what is shown of the certificate at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from bitwright.engine import plan as planning
from bitwright.engine.report import load
from bitwright.engine.run import run
from bitwright.events import Event, Finished
from bitwright.studio.worker.jobs import recipe_of
from bitwright.studio.worker.summary import summary


def quantize(
    model: str, out: str, recipe: dict[str, Any], bundled: str | None = None, samples: str | None = None
) -> Iterator[Event | dict[str, Any]]:
    """Quantize `model` into `out` (a folder, or a .onnx file), and end with a "summary" event.

    Where an earlier attempt was interrupted, it goes on; rows of finished parts are told again. `bundled` names the
    demonstration that a model belongs to, whose data are written below `samples`.
    """
    target = Path(out)
    if target.exists():  # everything was done but for telling so
        yield from _finish(Finished(out, load(target)))
        return
    _forget_peak()
    target.parent.mkdir(parents=True, exist_ok=True)
    source = Path(model)
    plan = planning.make(source, target, recipe_of(source, recipe, bundled, samples))
    for event in run(plan, restart=True):
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


def _forget_peak() -> None:
    """Count this process's peak memory from now on: the certificate tells that of this run, not of an earlier one."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
