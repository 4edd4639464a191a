"""The texts of problems as pages show them: compiled once by the worker, kept by what they were compiled from."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from bitwright import __version__
from bitwright.errors import FileError
from bitwright.judge.problem import Problem, ProblemError
from bitwright.studio.content import PACKAGE, Kept, Library
from bitwright.studio.workers import Worker

TEXTS = ("problem.md", "hints.md")
WRITES = ("markdown", "statement")
"""Modules of the worker that decide what a page shows."""


class Statements:
    """Compiled texts of the problems of `library`, kept in `cache`."""

    def __init__(self, library: Library, cache: Path) -> None:
        self.library, self.cache = library, cache
        self._kept = Kept(cache)

    def get(self, problem: Problem) -> dict[str, Any] | None:
        """What `worker.statement.compile_statement` made of a problem, or None where it has not been made yet."""
        return self._kept.read(problem.slug, self.key(problem))

    def keep(self, problem: Problem, page: dict[str, Any]) -> None:
        """Store it."""
        self._kept.keep(problem.slug, self.key(problem), page)

    async def ask(self, problem: Problem, worker: Worker) -> dict[str, Any]:
        """The compiled texts, from the worker where they are not kept. Raises what the worker raises."""
        found = self.get(problem)
        if found is None:
            await worker.ask("statement", content=str(self.library.folder), cache=str(self.cache), slug=problem.slug)
            found = self.get(problem)
        if found is None:
            fix = "Reload the page"
            raise FileError("changed while it was read", where=str(problem.folder), fix=fix)
        return found

    def key(self, problem: Problem) -> str:
        """Changes with the texts, what compiles them, and the version. FileError where one cannot be read."""
        digest = hashlib.sha256(self._code.encode())
        for name in TEXTS:
            try:
                digest.update(name.encode() + problem.text(name).encode())
            except ProblemError as error:
                raise FileError(str(error), where="problem", fix="Write it, or install again") from error
        return digest.hexdigest()[:20]

    @cached_property
    def _code(self) -> str:
        digest = hashlib.sha256(__version__.encode())
        for name in WRITES:
            digest.update((PACKAGE / "studio" / "worker" / f"{name}.py").read_bytes())
        return digest.hexdigest()
