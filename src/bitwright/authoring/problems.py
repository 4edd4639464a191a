"""The texts of problems as pages show them: compiled once by the worker, kept by what they were compiled from."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from bitwright.authoring.kept import PACKAGE, Kept, digest_of
from bitwright.errors import FileError
from bitwright.judge.problem import Problem, ProblemError

TEXTS = ("problem.md", "hints.md")
WRITES = ("markdown", "statement")
"""Modules beside this one that decide what a page shows."""


class Statements:
    """Compiled texts of problems, kept in `cache`."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._kept = Kept(cache)

    def get(self, problem: Problem) -> dict[str, Any] | None:
        """What `statement.compile_statement` made of a problem, or None where it has not been made yet."""
        return self._kept.read(problem.slug, self.key(problem))

    def keep(self, problem: Problem, page: dict[str, Any]) -> None:
        """Store it."""
        self._kept.keep(problem.slug, self.key(problem), page)

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
        return digest_of(PACKAGE / "authoring" / f"{name}.py" for name in WRITES)
