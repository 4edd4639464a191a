"""Problems as rooms ask for them: by their slugs, by an address, and with their texts compiled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from starlette.requests import Request

from bitwright.errors import FileError, InputError
from bitwright.judge.problem import Problem, ProblemError, Shelf
from bitwright.studio.shell.faults import Unknown
from bitwright.studio.shell.house import House, house
from bitwright.studio.shell.process import Worker


def sound(shelf: Shelf, slugs: Iterable[str]) -> Iterator[Problem]:
    """The problems of these slugs whose folders can be read: a faulty one takes nothing along."""
    for slug in slugs:
        with contextlib.suppress(ProblemError):
            yield shelf.problem(slug)


def problem_of(parts: House, slug: str) -> Problem:
    """A problem of the collections. Unknown where none is called so, InputError where its folder is faulty."""
    if slug not in parts.shelf.slugs:
        raise Unknown(f"no problem is called {slug[:60]!r}", where="practice", fix="See the list of problems")
    try:
        return parts.shelf.problem(slug)
    except ProblemError as error:
        raise InputError(str(error), where="problem", fix="Correct the problem's folder") from error


def asked(request: Request) -> tuple[House, Problem]:
    """The house, and the problem that an address names."""
    parts = house(request)
    return parts, problem_of(parts, request.path_params["slug"])


async def texts_of(parts: House, problem: Problem, worker: Worker) -> dict[str, Any]:
    """A problem's compiled texts, from a worker where they are not kept. Raises what the worker raises."""
    kept = parts.statements
    if (found := kept.get(problem)) is None:
        folder, cache = str(parts.library.folder), str(kept.cache)
        await worker.ask("statement", content=folder, cache=cache, slug=problem.slug)
        if (found := kept.get(problem)) is None:
            raise FileError("changed while it was read", where=str(problem.folder), fix="Reload the page")
    return found
