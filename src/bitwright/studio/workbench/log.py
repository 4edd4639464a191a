"""What a run told, kept in a file: one event per line."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from bitwright.errors import ResourceError
from bitwright.studio.workbench.topic import Event


class Log:
    """The events of a run, one JSON object per line, appended whole or not at all."""

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
            raise _disk_error(error, path) from error

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
            raise _disk_error(error, self.path) from error
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


def _disk_error(error: OSError, path: Path) -> ResourceError:
    fix = "Free some space, then let the run go on: what is finished is kept"
    return ResourceError(f"cannot be written ({error.strerror or error})", where=str(path), fix=fix)
