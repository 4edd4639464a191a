"""Files that have their full size, and their header, before anything is written between."""

from __future__ import annotations

import os
from pathlib import Path

from bitwright.errors import ResourceError


class Reserved:
    """Output files whose size is known: name -> (header, bytes of the whole file)."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, int]] = {}

    @property
    def total_bytes(self) -> int:
        """Bytes of all files, headers included."""
        return sum(size for _, size in self.files.values())

    def create(self, folder: Path) -> None:
        """Make the files at full size, headers written, data zero; those that are there already stay as they are.

        Raises ResourceError where the disk cannot hold them.
        """
        for file, (head, size) in self.files.items():
            if self.intact(folder, file):
                continue
            with (folder / file).open("wb") as out:
                out.write(head)
                try:
                    os.posix_fallocate(out.fileno(), 0, size)
                except OSError as error:
                    raise ResourceError(
                        f"cannot reserve {size} bytes ({error.strerror})",
                        where=str(folder / file),
                        fix="Free disk space",
                    ) from error

    def intact(self, folder: Path, file: str) -> bool:
        """Whether `file` is there at its full size and with its own header."""
        head, size = self.files[file]
        path = folder / file
        if not path.is_file() or path.stat().st_size != size:
            return False
        with path.open("rb") as stored:
            return stored.read(len(head)) == head
