"""llama.cpp through its program llama-bench, which measures speed and generates no text."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from bitwright import machine
from bitwright.errors import ModelError
from bitwright.files.gguf import is_gguf
from bitwright.models.language.runtimes import Runtime, turn
from bitwright.models.running import Runner, Turn

PROGRAM = "llama-bench"
LOOK = 0.002
"""Seconds from one look at the program's memory to the next."""


class LlamaBench(Runtime):
    """The program `llama-bench`; layers stay on the processor."""

    writes = False

    def reads(self, path: Path) -> bool:
        return is_gguf(path) and shutil.which(PROGRAM) is not None

    def runner(self, path: Path, ids: Sequence[int], tokens: int, threads: int) -> Runner:
        return _Runner(path, len(ids), tokens, threads)


class _Runner(Runner):
    """Starts the program anew for each turn. Its prompts are tokens at random, as many as asked for."""

    runtime = PROGRAM

    def __init__(self, path: Path, prompt: int, tokens: int, threads: int) -> None:
        self._path, self._prompt, self._peak = path, prompt, 0
        options = {"-m": path, "-p": prompt, "-n": tokens, "-r": 1, "-t": threads, "-ngl": 0, "-o": "json"}
        self._words = [PROGRAM, *(str(word) for pair in options.items() for word in pair)]

    def open(self) -> None:
        """Nothing: each turn loads the model."""

    def turn(self) -> Turn:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
            process = subprocess.Popen(self._words, stdin=subprocess.DEVNULL, stdout=out, stderr=said)
            while process.poll() is None:
                self._peak = max(self._peak, machine.resident("VmHWM", process.pid))
                time.sleep(LOOK)
            if process.returncode:
                lines = _text(said).split("\n")
                why = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1])
                raise ModelError(
                    f"{PROGRAM} does not run it (code {process.returncode}): {why}", where=str(self._path),
                    fix="Check the file with bitwright check, or update llama.cpp",
                )  # fmt: skip
            first, each = self._parse(_text(out))
        return turn(self._prompt, first, each)

    def _parse(self, said: str) -> tuple[float, float]:
        """Seconds for the prompt, and for each token generated."""
        try:
            found = json.loads(said)
            seconds = {bool(test["n_gen"]): test["avg_ns"] / 1e9 / (test["n_gen"] or 1) for test in found}
            self.runtime = f"llama.cpp {found[0]['build_commit']} ({PROGRAM})"
            return seconds[False], seconds[True]
        except (ValueError, LookupError, TypeError) as error:
            what = f"{PROGRAM} gives figures of another form ({type(error).__name__}: {error})"
            raise ModelError(what, where=str(self._path), fix="Update llama.cpp") from error

    def idle(self) -> int:
        return 0

    def peak(self) -> int:
        return self._peak


def _text(file: IO[bytes]) -> str:
    """All that was written to a file."""
    file.seek(0)
    return file.read().decode("utf-8", "replace").strip()


RUNTIME = LlamaBench()
