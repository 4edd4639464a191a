"""The plan of a stage: what becomes of each part, sizes, memory and time, before anything is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitwright import machine
from bitwright.engine.plan import require_place
from bitwright.files import hub
from bitwright.models import kind_of, require_device
from bitwright.models.stage import Size, Stage
from bitwright.stages import Settings
from bitwright.words import megabytes, millions


def make(
    source: Path,
    out: Path,
    settings: Settings,
    *,
    max_ram: int | None = None,
    device: str = "cpu",
    check_out: bool = True,
) -> Stage:
    """Decide everything about a stage on the model at `source`, whose output is `out`; nothing is written.

    `check_out` False leaves the output unchecked. Raises InputError's kinds and ResourceError for what could be known
    to fail.
    """
    kind = kind_of(source)
    require_device(kind, device)
    stage: Stage = kind.stage(settings, source, out, max_ram, device)
    stage.require_data()
    if check_out:
        require_out(stage)
        machine.require_memory(stage.estimate.needed, max_ram)
    return stage


def require_out(stage: Stage) -> None:
    """Raise where the output cannot be written: wrongly named, there already, in a folder that is closed or full."""
    stage.kind.require_name(stage.out, stage.kind.ending)
    require_place(stage, stage.after.bytes + stage.beside)


def summary(stage: Stage) -> dict[str, Any]:
    """The plan as plain data for `--json`."""
    return {
        "kind": stage.kind.name,
        "stage": stage.name,
        "source": str(stage.source),
        "out": str(stage.out),
        "settings": stage.settings.model_dump(mode="json"),
        **stage.facts(),
        "source_bytes": stage.before.bytes,
        "final_bytes": stage.after.bytes,
        "peak_memory_bytes": stage.memory,
        "seconds": stage.estimate.seconds,
        "runtimes": stage.runtimes(),
        "notes": stage.notes,
    }


def lines(stage: Stage) -> list[str]:
    """The plan in words, on one screen."""
    origin = hub.origin(stage.source)
    found = [f"plan: {f'{hub.PREFIX}{origin}' if origin else stage.source} -> {stage.out}, {stage.words}"]
    found += [f"  {line}" for line in stage.lines()]
    found.append(f"  {change(stage.before, stage.after)}")
    memory, seconds = stage.memory / 1e6, stage.estimate.seconds
    found.append(f"  memory: about {memory:,.0f} MB; time: about {seconds:,.0f} s on this machine")
    found.append(f"  loads in: {'; '.join(stage.runtimes())}")
    return found + [f"  note: {note}" for note in stage.notes]


def change(before: Size, after: Size) -> str:
    """`18.0 M -> 15.3 M parameters (85 %; of the blocks 80 %), 36.1 MB -> 30.6 MB`."""
    blocks, whole = 100 * after.blocks / max(before.blocks, 1), 100 * after.parameters / max(before.parameters, 1)
    return (
        f"{millions(before.parameters)} -> {millions(after.parameters)} parameters ({whole:.1f} %; {blocks:.1f} % of "
        f"the blocks' {millions(before.blocks)}), {megabytes(before.bytes)} -> {megabytes(after.bytes)}"
    )
