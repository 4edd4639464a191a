"""What a run tells: events kept in a file, handed on to whoever listens, and counted to a share of the whole."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from bitwright.errors import ResourceError

BEHIND = 2000
"""Events that a reader may be behind before it is left to connect again."""
PHASES = {
    "write": (0.0, 0.3, 0.3), "calibrate": (0.0, 0.3, 0.3), "quantize": (0.05, 0.85, 0.85),
    "certify": (0.85, 0.92, 1.0),
}  # fmt: skip
"""Where in the whole run a phase begins, and ends when it comes for the first and the second time, roughly. Other
phases leave the share as it is."""

Event = dict[str, Any]


class Told(NamedTuple):
    """An event as a stream tells it; `line` is its number in the log, None for what is not logged."""

    line: int | None
    event: Event


class Topic:
    """Hands events on to whoever listens."""

    def __init__(self) -> None:
        self._readers: set[asyncio.Queue[Told | None]] = set()

    @contextlib.contextmanager
    def listen(self) -> Any:
        """A queue of what is told from now on; it ends with None where its reader fell behind."""
        queue: asyncio.Queue[Told | None] = asyncio.Queue()
        self._readers.add(queue)
        try:
            yield queue
        finally:
            self._readers.discard(queue)

    def tell(self, told: Told | None) -> None:
        """Hand one event to all, or None: the end."""
        for queue in tuple(self._readers):
            if queue.qsize() >= BEHIND:
                self._readers.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(told)


class Log:
    """The events of a run, one JSON object a line, appended whole or not at all."""

    def __init__(self, path: Path) -> None:
        """Open or begin the log; a last line that was cut off is taken back. ResourceError where that fails."""
        self.path = path
        self.rows: dict[str, Event] = {}
        self.notes: list[str] = []
        self.lines = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = whole_lines(path)
            for line in kept:
                self._remember(json.loads(line))
            self._size = sum(len(line) + 1 for line in kept)
            self.lines = len(kept)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.ftruncate(self._file, self._size)
        except OSError as error:
            raise disk_error(error, path) from error

    def append(self, event: Event) -> int | None:
        """Write an event; its line number, counted from 1, or None where it was told before."""
        if self._is_old(event):
            return None
        data = json.dumps(event, separators=(",", ":"), default=float).encode() + b"\n"
        try:
            done = 0
            while done < len(data):
                done += os.write(self._file, data[done:])
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise disk_error(error, self.path) from error
        self._size += len(data)
        self.lines += 1
        self._remember(event)
        return self.lines

    def _is_old(self, event: Event) -> bool:
        if event["event"] == "row":
            known = self.rows.get(event["name"])
            return known is not None and {**known, "seconds": 0} == {**event, "seconds": 0}
        return event["event"] == "note" and event["text"] in self.notes

    def _remember(self, event: Event) -> None:
        if event.get("event") == "row":
            self.rows[event["name"]] = event
        elif event.get("event") == "note":
            self.notes.append(event["text"])

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a log that were written whole: up to one that is no JSON object."""
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    for number, line in enumerate(lines):
        if not (line.startswith(b"{") and line.endswith(b"}")):
            return lines[:number]
    return lines


class Progress:
    """How far a run is: a share of the whole that never falls, and how long the rest takes at the pace so far."""

    def __init__(self) -> None:
        self.phase, self.label, self.share = "start", "", 0.0
        self._part = (0.0, 0.0)
        self._begun: tuple[float, float] | None = None

    def take(self, event: Event) -> None:
        """Count an engine's event in."""
        if event["event"] == "started":
            again = event["phase"] == self.phase
            self.phase, self.label = event["phase"], event["detail"]
            low, middle, high = PHASES.get(self.phase, (self.share, self.share, self.share))
            self._part = (max(self.share, low), high if again else middle)
            self._grow(self._part[0])
        elif event["event"] == "progress":
            self.label = event["label"]
            low, high = self._part
            self._grow(low + (high - low) * min(1.0, event["done"] / max(event["total"], 1e-9)))

    def _grow(self, share: float) -> None:
        self.share = max(self.share, share)
        if self._begun is None and self.share > 0:
            self._begun = (time.monotonic(), self.share)

    def json(self) -> Event:
        """As a page gets it."""
        left = None
        if self._begun is not None:
            moment, share = self._begun
            grown, passed = self.share - share, time.monotonic() - moment
            if grown > 0.02 and passed > 1:
                left = round(passed * (1 - self.share) / grown, 1)
        return {"phase": self.phase, "share": round(self.share, 4), "label": self.label, "seconds_left": left}


def disk_error(error: OSError, path: Path) -> ResourceError:
    fix = "Free some space, then let the run go on: what is finished is kept"
    return ResourceError(f"cannot be written ({error.strerror or error})", where=str(path), fix=fix)
