"""A model in a process of its own, as the process that started it sees it: so that its memory is its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import Any

from bitwright import errors
from bitwright.errors import BitwrightError, ResourceError
from bitwright.models import Kind
from bitwright.models.running import Task, Turn


class Process:
    """Starts the model of a task, which is ready when this returns. Use it in `with`: it ends the process.

    Raises what loading the model raises, ResourceError where the process was killed.
    """

    def __init__(self, kind: Kind, task: Task) -> None:
        self._task = task
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        # -P: modules of the folder that a user works in are none of ours.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bitwright.engine.child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._said, text=True,
        )  # fmt: skip
        try:
            begun = {"kind": kind.name, "path": str(task.path), "given": task.given}
            self.idle: int = self._ask(json.dumps(begun))["idle"]
        except BaseException:
            self.close()
            raise
        self.peak = 0
        self.runtime = ""

    def turn(self) -> Turn:
        """Have it run once."""
        answer = self._ask("")
        self.peak, self.runtime = answer["peak"], answer["runtime"]
        turn: Turn = answer["turn"]
        return turn

    def _ask(self, line: str) -> dict[str, Any]:
        """Its answer to a line."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        said = self._process.stdout.readline()
        if not said:
            raise self._ended()
        answer: dict[str, Any] = json.loads(said)
        if (error := answer.get("error")) is not None:
            kind: type[BitwrightError] = getattr(errors, error["kind"])
            raise kind(error["what"], where=error["where"] or str(self._task.path), fix=error["fix"])
        return answer

    def _ended(self) -> BitwrightError:
        """The error of a process that ended by itself."""
        code = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().split("\n")
        where = str(self._task.path)
        if code == -9:
            fix = "It needs more memory than there is: close other programs, or take a smaller model"
            return ResourceError("the process that ran it was killed", where=where, fix=fix)
        what = f"the process that ran it ended with code {code}: {lines[-1][:300]}"
        return BitwrightError(what, where=where, fix="Try another release of the runtime, or report this")

    def close(self) -> None:
        """End it."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # what was not sent is not missed
                pipe.close()
        self._process.kill()
        self._process.wait()
        self._said.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
