"""What was computed once, kept on disk under names that change with everything it was computed from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bitwright import __version__

PACKAGE = Path(__file__).parents[1]


class Kept:
    """JSON by name and key in a folder. Of a name only what was kept last stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, dict[str, Any]] = {}

    def read(self, name: str, key: str) -> dict[str, Any] | None:
        """What is kept under a name and key, None where it was never written, or was cut off."""
        path = self._path(name, key)
        if path.name not in self._read:
            try:
                self._read[path.name] = json.loads(path.read_text("utf-8"))
            except (FileNotFoundError, ValueError):
                return None
        return self._read[path.name]

    def keep(self, name: str, key: str, value: dict[str, Any]) -> None:
        """Store it, and forget what was kept under other keys."""
        path = self._path(name, key)
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        partial.write_text(json.dumps(value, separators=(",", ":")), "utf-8")
        partial.replace(path)
        for old in self.folder.glob(f"{name}.*.json"):
            if old != path:
                old.unlink(missing_ok=True)

    def _path(self, name: str, key: str) -> Path:
        return self.folder / f"{name}.{key}.json"


def digest_of(code: Iterable[Path]) -> str:
    """Changes with the version of this package, and with these files of it."""
    digest = hashlib.sha256(__version__.encode())
    for path in code:
        digest.update(str(path.relative_to(PACKAGE)).encode() + path.read_bytes())
    return digest.hexdigest()
