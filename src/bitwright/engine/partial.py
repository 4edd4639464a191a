"""The folder of unfinished work beside an output: whose it is, and that one process alone works in it."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from bitwright.engine.journal import Journal
from bitwright.engine.report.certificate import read
from bitwright.errors import BitwrightError, RecipeError
from bitwright.models.kind import Kind

MARK = "bitwright.lock"
"""Says that the folder is ours; it holds the id of the process that writes, or wrote, there, and its lock."""


class Job(Protocol):
    """What is worked on: a plan, or a stage."""

    @property
    def kind(self) -> Kind: ...
    @property
    def out(self) -> Path: ...
    @property
    def partial(self) -> Path: ...
    @property
    def asked(self) -> str:
        """SHA-256 of what was asked for: a recipe, or a stage's settings."""


def require_ours(job: Job) -> None:
    """RecipeError where something else lies in the place of unfinished work, or another process works there."""
    folder = job.partial
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir() or not _ours(job):
        what = "is in the way: Bitwright keeps unfinished work there, and this is something else"
        raise RecipeError(what, where=str(folder), fix="Move it, or choose another -o")
    if (folder / MARK).is_file():
        file = os.open(folder / MARK, os.O_RDWR)
        try:
            _lock(file, folder)
        finally:
            os.close(file)


def _ours(job: Job) -> bool:
    """Whether what is there comes from a run: nothing yet, our mark, our journal, or this job with its certificate."""
    folder = job.partial
    if (folder / MARK).is_file() or Journal.begun(folder) or not any(folder.iterdir()):
        return True
    return any(_sealed(path, job) for path in (*folder.glob("*certificate.json"), job.kind.certificate(job.out)))


def _sealed(certificate: Path, job: Job) -> bool:
    """Whether a certificate is of this job: a run that was stopped between its last steps left it."""
    try:
        return bool(read(certificate)["recipe"]["sha256"] == job.asked)
    except BitwrightError:
        return False


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Make `folder` and work in it alone; RecipeError names the process that does so already."""
    file = _taken(folder)
    try:
        yield
    finally:
        os.close(file)


def _taken(folder: Path) -> int:
    """The mark of `folder`, open and locked."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / MARK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(file, folder)
            mine = _is_at(file, folder / MARK)
            if mine:
                os.truncate(file, 0)
                os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(file)
            raise
        if mine:
            return file
        os.close(file)  # the process before us was done just now


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(file: int, folder: Path) -> None:
    """Lock an open mark for this process; the kernel lets go of it when the process ends, however it does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = os.pread(file, 32, 0).decode("ascii", "replace").strip()
        raise RecipeError(
            f"pid {pid} is writing here" if pid else "another process is writing here",
            where=str(folder), fix="Wait until it is done, or choose another -o",
        ) from error  # fmt: skip


def clear(folder: Path) -> None:
    """Remove everything but the mark."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARK:
            path.unlink()
