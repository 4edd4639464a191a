"""What there is to learn: the study plan, the lessons' heads, and their compiled pages.

Content is data below `content`. The engine computes a lesson's numbers once, in the worker, and the page is kept below
`data/lessons` under a name that changes with everything it was computed from; the web process only reads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bitwright.authoring.folder import read_page, read_text, read_toml
from bitwright.authoring.kept import PACKAGE, Kept, digest_of
from bitwright.errors import FileError, InputError
from bitwright.judge.problem import ProblemError, Shelf

COMPUTES = ("core", "methods", "rewrites", "files", "models", "engine", "authoring")
"""Folders of the package whose code decides what a lesson says."""


@dataclass(frozen=True)
class Chapter:
    """A part of the study plan; `lessons` are slugs in reading order, none where it is not written yet."""

    slug: str
    title: str
    summary: str
    lessons: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """A lesson within the plan: `number` counts from 1 within its chapter."""

    chapter: Chapter
    number: int
    before: str | None
    after: str | None


class Library:
    """The content of `folder`, with compiled pages kept in `cache`. Raises InputError where the plan cannot be read."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        plan = read_toml(folder / "chapters.toml")
        self.title = str(plan["title"])
        self.summary = str(plan["summary"])
        self.chapters = tuple(
            Chapter(c["slug"], c["title"], c["summary"], tuple(c["lessons"])) for c in plan["chapters"]
        )
        self._kept = Kept(cache)

    @cached_property
    def lessons(self) -> tuple[str, ...]:
        """Slugs of all lessons in the order of the plan."""
        return tuple(slug for chapter in self.chapters for slug in chapter.lessons)

    @cached_property
    def questions(self) -> tuple[tuple[str, int], ...]:
        """Every question of every lesson as (slug, number from 1), from the text alone."""
        return tuple(
            (slug, number)
            for slug in self.lessons
            for number in range(1, read_text(self.lesson_folder(slug) / "lesson.md").count("\n```question\n") + 1)
        )

    @cached_property
    def features(self) -> dict[str, dict[str, str]]:
        """What the daily edition can shine a light on, by slug: title, text and a command to try."""
        return {feature["slug"]: feature for feature in read_toml(self.folder / "features.toml")["features"]}

    @cached_property
    def shelf(self) -> Shelf:
        """The problems. FileError where their list cannot be read."""
        try:
            return Shelf(self.folder)
        except ProblemError as error:
            fix = "Correct it, or install again"
            raise FileError(str(error), where=str(self.folder), fix=fix) from error

    def lesson_folder(self, slug: str) -> Path:
        """The folder of a lesson that the plan names; InputError for any other slug."""
        if slug not in self.lessons:
            raise InputError(f"no lesson is called {slug!r}", where="lessons", fix="See the study plan")
        return self.folder / "lessons" / slug

    def place(self, slug: str) -> Place:
        """Where a lesson stands in the plan."""
        self.lesson_folder(slug)
        at = self.lessons.index(slug)
        chapter = next(c for c in self.chapters if slug in c.lessons)
        before = self.lessons[at - 1] if at else None
        after = self.lessons[at + 1] if at + 1 < len(self.lessons) else None
        return Place(chapter, chapter.lessons.index(slug) + 1, before, after)

    def head(self, slug: str) -> dict[str, Any]:
        """Title and terms of a lesson, from its file alone."""
        return read_page(self.lesson_folder(slug) / "lesson.md")[0]

    def page(self, slug: str) -> dict[str, Any] | None:
        """The compiled lesson (see `compile.compile_lesson`), or None where it has not been computed yet."""
        return self._kept.read(slug, self.key(slug))

    def keep(self, slug: str, page: dict[str, Any]) -> None:
        """Store a compiled lesson, and forget its older versions."""
        self._kept.keep(slug, self.key(slug), page)

    def key(self, slug: str) -> str:
        """Changes with the lesson's files, the code that computes it, the bundled model and the version."""
        digest = hashlib.sha256(self._code.encode())
        for path in sorted(self.lesson_folder(slug).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()[:20]

    @cached_property
    def _code(self) -> str:
        model = self.folder / "demo-model" / "model.safetensors"
        return digest_of(_sources()) + (str(model.stat().st_size) if model.exists() else "")


def _sources() -> Iterator[Path]:
    for folder in COMPUTES:
        yield from sorted((PACKAGE / folder).rglob("*.py"))
