"""Models that run: what one does in every turn, and what a turn measures. Nothing here imports torch or a runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bitwright import machine

Turn = dict[str, Any]
"""What one turn measured, by the keys of the kind's gauges, and what it gave, as JSON holds it."""


@dataclass(frozen=True)
class Asked:
    """What a user wants to see run: text or samples, how much of it, on how many threads."""

    threads: int
    prompt: str | None = None
    tokens: int | None = None
    samples: str | None = None


class Gauge(NamedTuple):
    """One figure of a turn. `more` says whether more of it is faster; `form` writes a value with its unit."""

    key: str
    label: str
    more: bool
    form: Callable[[float], str]


@dataclass(frozen=True)
class Task:
    """What a model does in every turn.

    `given` is plain data for the process that runs it. `alike` must be the same of two models that are compared, by
    what it is in words. `memory`: bytes that it takes, where they are more than the file's. `told` reads the text of a
    turn; None where it has none.
    """

    path: Path
    given: dict[str, Any]
    alike: Mapping[str, Any]
    memory: int = 0
    notes: tuple[str, ...] = ()
    told: Callable[[Turn], str | None] = field(default=lambda turn: None)


class Runner(ABC):
    """A model in its runtime, in a process of its own; making one imports the runtime, `open` loads the model."""

    runtime: str
    """The runtime with its version, in words; known after the first turn."""

    @abstractmethod
    def open(self) -> None:
        """Load the model. Raises ModelError or FileError where the runtime does not take it."""

    @abstractmethod
    def turn(self) -> Turn:
        """Run once."""

    def idle(self) -> int:
        """Bytes of memory before the model is loaded."""
        return machine.resident()

    def peak(self) -> int:
        """Most bytes of memory that the process had so far: ru_maxrss would begin at the size of the one before it."""
        return machine.resident("VmHWM")
