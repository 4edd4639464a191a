"""Compiles what pages show of the content, lessons and the texts of problems, and keeps it for the web process."""

from __future__ import annotations

from pathlib import Path

from bitwright.authoring.compile import page_of
from bitwright.authoring.library import Library
from bitwright.authoring.problems import Statements
from bitwright.authoring.statement import compile_statement
from bitwright.errors import InputError
from bitwright.judge.problem import ProblemError, Shelf


def lesson(content: str, cache: str, slug: str) -> None:
    """Compute the page of a lesson unless it is kept already."""
    page_of(Library(Path(content), Path(cache)), slug)


def statement(content: str, cache: str, slug: str) -> None:
    """Compile a problem's texts unless they are kept already."""
    kept = Statements(Path(cache))
    try:
        problem = Shelf(Path(content)).problem(slug)
        if kept.get(problem) is None:
            kept.keep(problem, compile_statement(problem))
    except ProblemError as error:
        raise InputError(str(error), where=f"problem {slug}", fix="Correct the problem's folder") from error
