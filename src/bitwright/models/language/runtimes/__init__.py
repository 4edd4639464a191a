"""What runs a language model on this machine: llama.cpp where it is installed and reads the file, else transformers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from bitwright.models.running import Gauge, Runner, Turn
from bitwright.words import milliseconds, significant


class Runtime(ABC):
    """One runtime; a module here provides it, and imports what it stands on only where it makes a runner."""

    writes = True
    """Whether it gives the tokens that it generates."""
    decodes = False
    """Whether it computes with floats, whatever the file holds."""

    @abstractmethod
    def reads(self, path: Path) -> bool:
        """Whether it is installed, and meant for what lies at `path`."""

    @abstractmethod
    def runner(self, path: Path, ids: Sequence[int], tokens: int, threads: int) -> Runner:
        """What goes on from the prompt `ids` by `tokens` tokens in each turn, always the likeliest one."""


def turn(prompt: int, first: float, each: float, ids: list[int] | None = None) -> Turn:
    """What a turn gave: seconds until the first token after a prompt of `prompt` tokens, and for each one after it."""
    return {"generated": 1 / each, "first": first, "prompt": prompt / first, "ids": ids}


GAUGES = (
    Gauge("generated", "generating", True, lambda value: f"{significant(value)} tokens per second"),
    Gauge("first", "first token", False, lambda value: f"after {milliseconds(1000 * value)}"),
    Gauge("prompt", "prompt", True, lambda value: f"{significant(value)} tokens per second"),
)


def runtime_for(path: Path) -> Runtime:
    """The runtime at hand for the model at `path`."""
    from bitwright.models.language.runtimes import llama_bench, llama_package, transformers

    known = (llama_package.RUNTIME, llama_bench.RUNTIME, transformers.RUNTIME)
    return next(runtime for runtime in known if runtime.reads(path))
