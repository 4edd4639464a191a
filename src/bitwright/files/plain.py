"""Files that people give and name: only regular ones are read, only so much of them, and no name is taken twice."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bitwright.errors import RecipeError

LIMIT = 1 << 26
"""Bytes of a text file that is read whole: the largest tokenizers and indices have less than half."""
SAMPLES, SAMPLE = 256, 1 << 16
"""Samples of a large file that tell it from another, and the bytes of each."""
NAME = 255
"""Bytes of a file's name: no usual file system takes more."""


def require_regular(path: Path) -> None:
    """Raise OSError for what is no regular file: a pipe would wait for ever, a device never ends."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def read(path: Path, limit: int = LIMIT) -> bytes:
    """The bytes of a regular file. OSError where it is none, cannot be read, or holds more than `limit` bytes."""
    require_regular(path)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(min(limit, size) + 1)  # as much memory is taken as is asked for, whatever there is to read
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit >> 20} MiB", str(path))
    return data


def read_text(path: Path, limit: int = LIMIT) -> str:
    """The same as text; UnicodeDecodeError, a ValueError, where it is not UTF-8."""
    return read(path, limit).decode("utf-8")


def hashes(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file, by name."""
    found = {}
    for path in files:
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def fingerprint(files: Iterable[Path]) -> list[list[Any]]:
    """Name, size and content of each file: SHA-256 of all, or of SAMPLES samples beside its time of change.

    What it costs does not grow with the files. A time alone says little: copies keep it, and a new one means nothing.
    """
    found = []
    for path in sorted(files):
        facts, digest = path.stat(), hashlib.sha256()
        whole = facts.st_size <= SAMPLES * SAMPLE
        with path.open("rb", buffering=0) as file:
            for i in range(SAMPLES):
                file.seek(i * SAMPLE if whole else (facts.st_size - SAMPLE) * i // (SAMPLES - 1))
                digest.update(file.read(SAMPLE))
        found.append([path.name, facts.st_size, digest.hexdigest(), None if whole else facts.st_mtime_ns])
    return found


def parse(text: str | bytes) -> Any:
    """What JSON text says. ValueError where it is not JSON, also where it is nested too deep for Python.

    >>> parse("[" * 100_000)
    Traceback (most recent call last):
    ...
    ValueError: nested too deep
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def why(error: Exception) -> str:
    """What went wrong, without number and name: the message names the file already."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def require_new(path: Path, fix: str = "Choose another -o, or remove it") -> None:
    """Raise RecipeError where a file or folder cannot be made under this name; a link to nothing counts as there."""
    try:
        path.name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RecipeError("the name is not UTF-8", where=ascii(str(path)), fix="Choose another -o") from error
    if len(os.fsencode(path.name)) > NAME:
        raise RecipeError(f"the name has more than {NAME} bytes", where=str(path), fix="Choose a shorter -o")
    if os.path.lexists(path):
        what = "the output exists" if path.exists() else "the output exists, as a link to nothing"
        raise RecipeError(what, where=str(path), fix=fix)
