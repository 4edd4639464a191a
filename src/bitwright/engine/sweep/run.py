"""Runs a sweep: members in processes of their own, several at once, and what came of each."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from bitwright import machine
from bitwright.engine.sweep.plan import Member, Sweep
from bitwright.events import Event, Progress
from bitwright.events import Member as Told

PATIENCE = 20.0
"""Seconds that a member may take to stop; then it is killed, which costs it nothing that is finished."""
PHASE = "quantize"
"""The phase of a member whose progress counts as the member's."""


def run(sweep: Sweep, workers: int) -> Iterator[Event]:
    """Make what is not there yet, `workers` members at once at most, as far as memory allows; yields their events.

    A member that fails does not keep the others: its last event is an "error". Stop the iteration at any event, or kill
    the process at any moment: running the same sweep again goes on. The outputs are those of single runs.
    """
    told: SimpleQueue[tuple[_Process, dict[str, Any] | None]] = SimpleQueue()
    waiting = deque(member for member in sweep.members if not member.done)
    total, finished = len(waiting), 0
    working: list[_Process] = []
    try:
        while waiting or working:
            while waiting and len(working) < workers and _fits(waiting[0], working):
                working.append(_Process(sweep, waiting.popleft(), told))
            process, event = told.get()
            if event is None:
                working.remove(process)
                finished += 1
                if (said := process.close()) is not None:
                    yield Told(process.member.name, said)
            else:
                process.hear(event)
                yield Told(process.member.name, event)
            busy = ", ".join(one.member.name for one in working)
            yield Progress("sweep", finished + sum(one.share for one in working), total, busy)
        shutil.rmtree(sweep.shared, ignore_errors=True)
    finally:
        for process in working:
            process.stop()
        for process in working:
            process.close()


def _fits(member: Member, working: list[_Process]) -> bool:
    """Whether there is memory for one more; the first always runs, and says itself where it cannot."""
    return not working or member.memory + sum(one.member.memory for one in working) <= machine.default_ceiling()


@dataclass(eq=False)
class _Process:
    """A member at work. What it says goes to `told`; None once it has ended."""

    sweep: Sweep
    member: Member
    told: SimpleQueue[Any]
    share: float = 0.0
    """How much of it is done, about."""
    ended: bool = False
    """It has said how it ended."""
    _said: Any = field(default_factory=tempfile.TemporaryFile)

    def __post_init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bitwright.engine.sweep.child"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._said, text=True, start_new_session=True,
        )  # fmt: skip
        job = {
            "source": str(self.sweep.source), "out": str(self.member.out), "threads": self.sweep.threads,
            "max_ram": self.sweep.max_ram, "device": self.sweep.device, "shared": str(self.sweep.shared),
            "recipe": self.member.recipe.model_dump(mode="json", exclude_unset=True),
        }  # fmt: skip
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it ended at once, and `close` says why
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.told.put((self, json.loads(line)))
        self.told.put((self, None))

    def hear(self, event: dict[str, Any]) -> None:
        """Take note of how far it is."""
        self.ended = self.ended or event["event"] in ("finished", "error")
        if event["event"] == "progress" and event["phase"] == PHASE:
            self.share = event["done"] / max(event["total"], 1)

    def stop(self) -> None:
        """Ask it to stop."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def close(self) -> dict[str, Any] | None:
        """Wait for its end; the error of one that did not say how it ended."""
        self.stop()
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._listening.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._said.seek(0)
        last = self._said.read().decode("utf-8", "replace").strip().split("\n")[-1][:300]
        self._said.close()
        if self.ended:
            return None
        text = "its process was killed: it may need more memory than there is" if code == -9 else last
        return {"event": "error", "kind": "ResourceError", "text": text or f"its process ended with code {code}"}
