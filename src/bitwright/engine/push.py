"""An output on its way to a repository of the hub: what goes there, decided before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from bitwright.engine.report.certificate import Certificate, load
from bitwright.engine.report.judgement import headline
from bitwright.files.hub import upload
from bitwright.models import kind_of
from bitwright.words import megabytes, plural


@dataclass(frozen=True)
class Push:
    """Files by their names in the repository `repo` of the hub at `on`."""

    out: Path
    repo: str
    on: str
    files: Mapping[str, Path]
    certificate: Certificate
    private: bool = False
    revision: str | None = None

    @property
    def bytes(self) -> int:
        """What all files have together."""
        return sum(path.stat().st_size for path in self.files.values())

    @property
    def summary(self) -> dict[str, Any]:
        """Plain data: the files with their sizes, and where they go."""
        sizes = {name: path.stat().st_size for name, path in sorted(self.files.items())}
        target = {"repo": self.repo, "on": self.on, "private": self.private, "revision": self.revision}
        return {"out": str(self.out), **target, "files": sizes, "bytes": self.bytes}

    def lines(self) -> list[str]:
        """What is going to be sent, and where."""
        seen = "a new repository is private" if self.private else "a new repository is public"
        branch = f", branch {self.revision}" if self.revision else ""
        found = [f"{self.out} -> {self.on}/{self.repo}{branch} ({seen})"]
        found += [f"  {megabytes(path.stat().st_size):>9}  {name}" for name, path in sorted(self.files.items())]
        found += [f"  {megabytes(self.bytes):>9}  in {plural(len(self.files), 'file')}"]
        if paths := _paths(self.certificate["recipe"]):
            found.append(f"  note: the certificate's recipe names paths of this machine: {', '.join(paths)}")
        return found

    def send(self) -> str:
        """Send them as one commit; its address. Raises InputError as `upload` does."""
        return upload.upload(
            self.files, self.repo, private=self.private, revision=self.revision, on=self.on,
            message=f"Quantized by Bitwright. {headline(self.certificate)}",
        )  # fmt: skip


def prepare(
    out: Path, repo: str, *, private: bool = False, revision: str | None = None, endpoint: str | None = None
) -> Push:
    """What `out`, an output with its certificate, is in a repository. Raises ModelError and InputError."""
    certificate = load(out)
    on = upload.require_target(repo, revision, endpoint)
    return Push(out, repo, on, kind_of(out).shelved(out), certificate, private, revision)


def _paths(table: Any) -> list[str]:
    """Absolute paths in a recipe."""
    if isinstance(table, dict | list):
        values = table.values() if isinstance(table, dict) else table
        return [path for value in values for path in _paths(value)]
    return [table] if isinstance(table, str) and PurePath(table).is_absolute() else []
