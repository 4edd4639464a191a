"""How fast a model runs in the runtime at hand, and in how much memory; beside the float model, turn by turn."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bitwright import machine
from bitwright.engine.process import Process
from bitwright.errors import ModelError, ResourceError
from bitwright.events import Event, Note, Progress, Started
from bitwright.models import Kind, kind_of, require_same_kind
from bitwright.models.running import Asked, Gauge, Task, Turn
from bitwright.words import megabytes, plural, significant

TURNS = 5
"""Turns that count. One before them fills caches, and has weights decoded that are decoded when they are first used."""


class Ratio(NamedTuple):
    """How many times faster a model is than the float one: median, least and most of all turns."""

    median: float
    least: float
    most: float

    @property
    def words(self) -> str:
        """What it says: faster is what was so in every turn."""
        told = f"{significant(self.median)} times ({significant(self.least)} to {significant(self.most)})"
        if self.least > 1:
            return f"faster: {told}"
        return f"slower: {told}" if self.most < 1 else f"no clear difference: {told}"


@dataclass(frozen=True)
class Side:
    """One model that ran: bytes of its weights on disk, of memory before it was loaded (0: not known) and at the peak.

    `text` is what it wrote, None where its runtime gives none.
    """

    path: Path
    runtime: str
    size: int
    idle: int
    peak: int
    turns: tuple[Turn, ...]
    text: str | None

    def median(self, gauge: Gauge) -> float:
        """The median of all turns."""
        return float(median(turn[gauge.key] for turn in self.turns))

    def summary(self, gauges: Sequence[Gauge]) -> dict[str, Any]:
        """Plain data; figures of every turn in their order."""
        figures = {gauge.key: [turn[gauge.key] for turn in self.turns] for gauge in gauges}
        return {
            "path": str(self.path), "runtime": self.runtime, "bytes": self.size, "idle_memory_bytes": self.idle or None,
            "peak_memory_bytes": self.peak, "median": {gauge.key: self.median(gauge) for gauge in gauges},
            "turns": figures, "text": self.text,
        }  # fmt: skip


@dataclass(frozen=True)
class Speed:
    """How a model ran, and the float one beside it where there is one."""

    gauges: tuple[Gauge, ...]
    threads: int
    sides: tuple[Side, ...]
    notes: tuple[str, ...]

    def ratio(self, gauge: Gauge) -> Ratio | None:
        """How many times faster the model was than the float one in the turn beside it; None without one."""
        if len(self.sides) < 2:
            return None
        pairs = zip(*(side.turns for side in self.sides), strict=True)
        found = [(a[gauge.key] / b[gauge.key]) ** (1 if gauge.more else -1) for a, b in pairs]
        return Ratio(median(found), min(found), max(found))

    def summary(self) -> dict[str, Any]:
        """Plain data."""
        ratios = {gauge.key: self.ratio(gauge) for gauge in self.gauges}
        return {
            "threads": self.threads,
            "model": self.sides[0].summary(self.gauges),
            "against": self.sides[1].summary(self.gauges) if len(self.sides) > 1 else None,
            "ratios": {key: ratio._asdict() for key, ratio in ratios.items() if ratio is not None},
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """What was measured, for people."""
        found = []
        for side, name in zip(self.sides, ("model", "float"), strict=False):
            threads = plural(self.threads, "thread")
            found.append(f"{name:<12} {side.path}: {megabytes(side.size)}, {side.runtime}, {threads}")
        for gauge in self.gauges:
            told = "; float ".join(gauge.form(side.median(gauge)) for side in self.sides)
            ratio = self.ratio(gauge)
            found.append(f"{gauge.label:<12} {told}" + (f"; {ratio.words}" if ratio else ""))
        found.append(f"{'peak memory':<12} {'; float '.join(map(_memory, self.sides))}")
        found += [f"note         {note}" for note in self.notes]
        texts = [side.text for side in self.sides if side.text is not None]
        if len(texts) == 2 and texts[0] == texts[1]:
            return [*found, f"text         {texts[0]!r}, float the same"]
        written = zip(self.sides, ("text", "float text"), strict=False)
        return [*found, *(f"{name:<12} {side.text!r}" for side, name in written if side.text is not None)]


def _memory(side: Side) -> str:
    before = f" ({megabytes(side.idle)} before the model was loaded)" if side.idle else ""
    return f"{megabytes(side.peak)}{before}"


def run(model: Path, against: Path | None, asked: Asked) -> Generator[Event, None, Speed]:
    """Run a model, and the float model `against` in turns with it, each in a process of its own.

    The generator returns a Speed. Raises what opening the models raises, InputError's kinds for what cannot be run,
    ModelError for two models that are not alike, ResourceError where memory does not hold them.
    """
    kind = kind_of(model) if against is None else require_same_kind(model, against)
    paths = [model] if against is None else [model, against]
    with tempfile.TemporaryDirectory() as folder:
        tasks = []
        for i, path in enumerate(paths):
            place = Path(folder) / str(i)
            place.mkdir()
            tasks.append(kind.task(path, asked, place))
        _require_alike(tasks)
        _require_room(kind, tasks)
        notes = list(dict.fromkeys(note for task in tasks for note in task.notes))
        yield Started("run", " against ".join(map(str, paths)))
        sides = yield from _run(kind, tasks)
    if len({side.runtime for side in sides}) > 1:
        notes.append("two runtimes: what differs is theirs as much as the models'")
    for note in notes:
        yield Note(note)
    return Speed(kind.gauges, asked.threads, tuple(sides), tuple(notes))


def _run(kind: Kind, tasks: Sequence[Task]) -> Generator[Event, None, list[Side]]:
    """All turns of all tasks; whoever runs second finds a warmer machine, so they take turns in that, too."""
    turns: list[list[Turn]] = [[] for _ in tasks]
    with ExitStack() as stack:
        processes = [stack.enter_context(Process(kind, task)) for task in tasks]
        for number in range(TURNS + 1):
            order = range(len(tasks))
            for i in order if number % 2 else reversed(order):
                turns[i].append(processes[i].turn())
            yield Progress("run", number + 1, TURNS + 1, "warming up" if number == 0 else f"turn {number}")
    return [
        Side(task.path, process.runtime, kind.size(task.path), process.idle, process.peak, tuple(turns[i][1:]),
             task.told(turns[i][0]))
        for i, (task, process) in enumerate(zip(tasks, processes, strict=True))
    ]  # fmt: skip


def _require_alike(tasks: Sequence[Task]) -> None:
    """Raise ModelError where two models are not of one architecture."""
    first = tasks[0]
    for other in tasks[1:]:
        for name in dict.fromkeys([*first.alike, *other.alike]):
            a, b = first.alike.get(name), other.alike.get(name)
            if a != b:
                what = f"is not what {first.path} was made from: {name}: {_short(b)} here, {_short(a)} there"
                raise ModelError(what, where=str(other.path), fix="Give the float model of the same architecture")


def _short(value: Any) -> str:
    """A value in an error: a long list by its length."""
    return "none" if value is None else f"{len(value)}" if isinstance(value, list) else f"{value}"


def _require_room(kind: Kind, tasks: Sequence[Task]) -> None:
    """Raise ResourceError where memory does not hold what runs."""
    needed = sum(max(task.memory, kind.size(task.path)) for task in tasks)
    free = machine.memory_available()
    if needed > free:
        what = f"running takes {megabytes(needed)} of memory at least, {megabytes(free)} are free"
        raise ResourceError(what, where=str(tasks[0].path), fix="Close other programs, or leave --against out")
