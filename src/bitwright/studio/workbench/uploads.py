"""Models dropped on *check*: written to disk as they come, within limits, and gone after a day."""

from __future__ import annotations

import errno
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from anyio import to_thread

from bitwright.errors import InputError, ResourceError
from bitwright.studio.shell.faults import NoSpace, TooLarge, Unknown

FILES = 500
"""Files of one upload."""
DEPTH = 3
"""Folders within one upload, one in another."""
AGE = 86400.0
"""Seconds after which an upload is removed when the studio starts."""
PIECE = 1 << 20
"""Bytes in memory before they are written."""
NAME = 200
"""Bytes of UTF-8 that the name of a file or folder may have."""


class Uploads:
    """The uploads below `folder`: `<id>/files` holds what came, `<id>/coming` what is on its way."""

    def __init__(self, folder: Path, limit: int) -> None:
        """`limit` is in bytes, of all files of one upload."""
        self.folder, self.limit = folder, limit
        self._coming: dict[str, dict[Path, int]] = {}

    def sweep(self, age: float = AGE) -> None:
        """Remove uploads that were begun more than `age` seconds ago."""
        for path in self.folder.glob("*"):
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - age:
                    shutil.rmtree(path, ignore_errors=True)

    def create(self) -> str:
        """Begin an upload; returns its id. NoSpace where the disk is full."""
        name = secrets.token_hex(8)
        try:
            (self.folder / name / "files").mkdir(parents=True)
            (self.folder / name / "coming").mkdir()
        except OSError as error:
            raise _refused(error, self.folder) from error
        return name

    def root(self, name: str) -> Path:
        """Where the files of an upload lie; Unknown where there is none of this id."""
        path = self.folder / name / "files"
        if not re.fullmatch(r"[0-9a-f]{16}", name) or not path.is_dir():
            raise Unknown(f"no upload is called {name!r}", where="uploads", fix="Drop the files again")
        return path

    def remove(self, name: str) -> None:
        """Forget an upload and its files."""
        shutil.rmtree(self.root(name).parent, ignore_errors=True)

    async def put(self, name: str, place: str, body: AsyncIterator[bytes], length: int | None = None) -> int:
        """Write one file of an upload, named `place` within it; returns its bytes.

        `length` is what the sender promised, refused at once where it is too much. After any error, and where the
        sender goes away, nothing of the file is left. Raises Unknown, InputError, TooLarge, NoSpace.
        """
        root = self.root(name)
        target = root / inside(place)
        others = self._coming.setdefault(name, {})
        held = await to_thread.run_sync(_Held, root, target)
        if held.count + len(others) >= FILES:
            fix = "Drop the model's folder alone"
            raise TooLarge(f"more than {FILES} files", where="the upload", fix=fix)
        self._require_room(held.bytes + sum(others.values()) + (length or 0))
        free = shutil.disk_usage(root).free
        if (length or 0) > free:
            raise _full(self.folder, f"{(length or 0) / 1e6:,.0f} MB are on their way, {free / 1e6:,.0f} MB are free")
        partial = root.parent / "coming" / secrets.token_hex(8)
        others[partial] = 0
        try:
            with await to_thread.run_sync(partial.open, "wb") as file:
                piece = bytearray()
                async for part in body:
                    piece += part
                    others[partial] += len(part)
                    self._require_room(held.bytes + sum(others.values()))
                    if len(piece) >= PIECE:
                        await to_thread.run_sync(file.write, bytes(piece))
                        piece.clear()
                await to_thread.run_sync(file.write, bytes(piece))
                await to_thread.run_sync(file.flush)
            if length is not None and others[partial] != length:
                raise InputError(f"{others[partial]} of {length} bytes came", where=place, fix="Drop it again")
            await to_thread.run_sync(_settle, partial, target)
            return others[partial]
        except OSError as error:
            raise _refused(error, Path(place)) from error
        finally:
            del others[partial]
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def _require_room(self, total: int) -> None:
        if total > self.limit:
            fix = "Start the studio with a larger --max-upload, or choose the model by its path, which copies nothing"
            raise TooLarge(f"larger than {self.limit / 1e9:g} GB in all", where="the upload", fix=fix)


class _Held:
    """What an upload holds already, but for the file that is about to be written again."""

    def __init__(self, root: Path, target: Path) -> None:
        sizes = [path.stat().st_size for path in root.rglob("*") if path != target and path.is_file()]
        self.count, self.bytes = len(sizes), sum(sizes)


def inside(place: str) -> Path:
    """The relative path that the name of a dropped file means; InputError for one that could lead elsewhere."""
    parts = place.split("/")
    fix = "Drop the file or its folder again"
    if len(parts) > DEPTH + 1:
        raise InputError(f"more than {DEPTH} folders deep", where=place[:200], fix="Drop the model's folder alone")
    for part in parts:
        odd = part in ("", ".", "..") or "\\" in part or any(ord(letter) < 32 or ord(letter) == 127 for letter in part)
        try:
            long = len(part.encode()) > NAME
        except UnicodeEncodeError:
            odd = long = True
        if odd or long or part.endswith((" ", ".")):
            raise InputError("not the name of a file within a folder", where=repr(place[:200]), fix=fix)
    return Path(*parts)


def _settle(partial: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(target)


def _refused(error: OSError, where: Path) -> ResourceError | InputError:
    """What the system says against a file, in words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return _full(where, "the disk is full")
    if error.errno in (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY):
        return InputError("a file and a folder have one name", where=str(where), fix="Drop the model's folder alone")
    return ResourceError(error.strerror or str(error), where=str(where), fix="Check the studio's --data folder")


def _full(where: Path, what: str) -> NoSpace:
    fix = "Free some space, or choose the model by its path, which copies nothing; nothing of this file was kept"
    return NoSpace(what, where=str(where), fix=fix)
