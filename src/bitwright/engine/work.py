"""Work that may be stopped at any moment: in the partial output, alone there, with its journal."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from bitwright.engine.journal import NAME, Journal
from bitwright.engine.partial import Job, clear, hold
from bitwright.errors import InputError
from bitwright.events import Event, Finished, Note


def at_work(
    job: Job,
    read: Callable[[], Generator[Event, None, Any]],
    identify: Callable[[Any], str],
    work: Callable[[Any, Journal], Generator[Event, None, Callable[[], Finished]]],
    restart: bool,
) -> Iterator[Event]:
    """Read the data, open the journal of what `identify` makes of them, work, and publish what `work` returns.

    Where the input turns out to be at fault, its unfinished work goes: the corrected call begins anew. Where a library
    is missing, only what holds nothing finished goes. `restart` is that of `open_journal`.
    """
    made = [folder for folder in (job.partial, *job.out.parents) if not folder.exists()]
    with hold(job.partial):
        (job.partial / NAME).touch()
        journal: Journal | None = None
        try:
            data = yield from read()
            journal = yield from open_journal(job.partial, identify(data), restart)
            publish = yield from work(data, journal)
        except (InputError, ModuleNotFoundError) as error:
            if journal is None:  # what is there may be of an earlier run whose data are gone for a while
                _remove(job.partial, made, whole=job.partial in made)
            elif isinstance(error, InputError) or not journal.done:
                _remove(job.partial, made, whole=True)
            raise
        yield publish()


def open_journal(folder: Path, job: str, restart: bool) -> Generator[Event, None, Journal]:
    """The journal of a job (a hash) in its partial output; RecipeError where that belongs to another one.

    With `restart` the other's work is removed, with a note.
    """
    if not Journal.belongs(folder, job) and (restart or Journal.empty(folder)):
        if not Journal.empty(folder):
            yield Note(
                "started again: the model, the version or the number of threads has changed since it was stopped"
            )
        clear(folder)
    return Journal(folder, job)


def _remove(partial: Path, made: list[Path], whole: bool) -> None:
    """Take the partial output away where `whole`, and the folders that were made for it."""
    if whole:
        shutil.rmtree(partial, ignore_errors=True)
    for folder in made:
        with suppress(OSError):  # it is gone, or holds what is not ours
            folder.rmdir()
