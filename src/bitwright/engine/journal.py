"""The record of finished tensors beside a partial output, by which the same command goes on after any interruption."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bitwright.errors import RecipeError
from bitwright.events import Row

NAME = "journal.jsonl"


class Journal:
    """One line per finished tensor: {name, sums: {stored tensor: CRC-32}, row}. The first line identifies the job.

    Lines {name, value} keep what was measured before, `kept` by name.

    A line is written after its bytes. On resuming, bytes are trusted only where their checksum still agrees, so a
    line that outlived its data (power loss) costs work, never correctness.
    """

    def __init__(self, folder: Path, job: str) -> None:
        """Open or begin the journal of `job` (a hash); RecipeError where the folder belongs to another job."""
        self.path = folder / NAME
        self.done: dict[str, dict[str, Any]] = {}
        self.kept: dict[str, Any] = {}
        # A damaged line is one that does not parse: its tensors are written anew.
        data = self.path.read_bytes().decode("utf-8", "replace") if self.path.exists() else ""
        lines = data.splitlines()
        if not self.belongs(folder, job):
            raise RecipeError(
                "holds the unfinished work of another recipe, model, version or number of threads",
                where=str(folder),
                fix="Remove it, or choose another -o",
            )
        for line in lines[1:]:
            entry = _parse(line)
            if "value" in entry:
                self.kept[entry["name"]] = entry["value"]
            elif entry:
                self.done[entry["name"]] = entry
        self.fresh = not lines or not _parse(lines[0])
        if self.fresh:
            self.done.clear()
            self.kept.clear()
            self.path.write_text(json.dumps({"job": job}) + "\n")
        elif not data.endswith("\n"):
            with self.path.open("a") as file:  # the last line was cut off mid-write
                file.write("\n")

    @staticmethod
    def begun(folder: Path) -> bool:
        """Whether `folder` holds the journal of any job."""
        path = folder / NAME
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return "job" in _parse(file.readline(1 << 12).decode("utf-8", "replace"))

    @staticmethod
    def empty(folder: Path) -> bool:
        """Whether the journal in `folder`, if there is one, records nothing that is finished."""
        path = folder / NAME
        return not path.exists() or path.read_bytes().count(b"\n") < 2

    @staticmethod
    def belongs(folder: Path, job: str) -> bool:
        """Whether the journal in `folder`, if there is one, is that of `job`."""
        path = folder / NAME
        lines = path.read_bytes().decode("utf-8", "replace").splitlines() if path.exists() else []
        return not lines or not _parse(lines[0]) or _parse(lines[0]).get("job") == job

    def add(self, name: str, sums: dict[str, int], row: Row | None) -> None:
        """Record that all stored tensors of `name` are written."""
        entry = {"name": name, "sums": sums, "row": None if row is None else asdict(row)}
        self.done[name] = entry
        self._append(entry)

    def keep(self, name: str, value: Any) -> None:
        """Record what was measured, JSON-able."""
        self.kept[name] = value
        self._append({"name": name, "value": value})

    def _append(self, entry: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def row(self, name: str) -> Row:
        """The recorded measures of a finished part."""
        raw = self.done[name]["row"]
        return Row(**{**raw, "notes": tuple(raw["notes"])})


def _parse(line: str) -> dict[str, Any]:
    """The line as a table; empty where it was cut off."""
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
