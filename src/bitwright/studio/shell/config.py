"""What the studio is started with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_data_path

from bitwright.authoring.folder import CONTENT

PORT = 8737
UPLOAD = 4 * 10**9
"""Bytes that one dropped model may have unless `--max-upload` says otherwise."""


def default_data() -> Path:
    """Where the studio keeps its database, runs and computed lessons unless `--data` says otherwise."""
    return user_data_path("bitwright", appauthor=False)


@dataclass(frozen=True)
class Config:
    """How the studio was started. `token` is demanded of every request where it listens beyond this machine."""

    data: Path = field(default_factory=default_data)
    models: tuple[Path, ...] = ()
    """Folders below which models may be opened, besides the bundled ones and what the studio wrote."""
    host: str = "127.0.0.1"
    port: int | None = None
    """None for PORT, or the next free one; 0 for any."""
    token: str | None = None
    database: str | None = None
    """A PostgreSQL URL; None for SQLite below `data`."""
    max_upload: int = UPLOAD
    content: Path = CONTENT
