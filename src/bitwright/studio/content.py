"""What there is to learn: the study plan, the lessons' heads, and their compiled pages.

Content is data below `content`. The engine computes a lesson's numbers once, in the worker, and the page is kept below
`data/lessons` under a name that changes with everything it was computed from; the web process only reads it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bitwright import __version__
from bitwright.errors import FileError, InputError
from bitwright.judge.problem import ProblemError, Shelf

PACKAGE = Path(__file__).parents[1]
COMPUTES = ("core", "methods", "models", "files")
"""Folders of the package whose code decides the numbers of a lesson, besides these modules of the worker:"""
WRITES = ("compile", "figures", "lab", "markdown", "trace")


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


class Kept:
    """What was computed, on disk: JSON by name and key. Of a name only what was kept last stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, dict[str, Any]] = {}

    def read(self, name: str, key: str) -> dict[str, Any] | None:
        """What is kept under a name and key, None where it was never written, or was cut off."""
        path = self._path(name, key)
        if path.name not in self._read:
            try:
                self._read[path.name] = json.loads(path.read_text("utf-8"))
            except (FileNotFoundError, ValueError):
                return None
        return self._read[path.name]

    def keep(self, name: str, key: str, value: dict[str, Any]) -> None:
        """Store it, and forget what was kept under other keys."""
        path = self._path(name, key)
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        partial.write_text(json.dumps(value, separators=(",", ":")), "utf-8")
        partial.replace(path)
        for old in self.folder.glob(f"{name}.*.json"):
            if old != path:
                old.unlink(missing_ok=True)

    def _path(self, name: str, key: str) -> Path:
        return self.folder / f"{name}.{key}.json"


class Library:
    """The content of `folder`, with compiled pages kept in `cache`. Raises InputError where the plan cannot be read."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        plan = _toml(folder / "chapters.toml")
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
            for number in range(1, self._text(slug).count("\n```question\n") + 1)
        )

    @cached_property
    def features(self) -> dict[str, dict[str, str]]:
        """What the daily edition can shine a light on, by slug: title, text and a command to try."""
        return {feature["slug"]: feature for feature in _toml(self.folder / "features.toml")["features"]}

    @cached_property
    def shelf(self) -> Shelf:
        """The problems. FileError where their list cannot be read."""
        try:
            return Shelf(self.folder)
        except ProblemError as error:
            fix = "Correct it, or install again"
            raise FileError(str(error), where=str(self.folder), fix=fix) from error

    def _text(self, slug: str) -> str:
        path = self.lesson_folder(slug) / "lesson.md"
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"cannot be read ({error})", where=str(path), fix="Write it, or install again") from error

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
        return _split(self._text(slug), self.lesson_folder(slug) / "lesson.md")[0]

    def page(self, slug: str) -> dict[str, Any] | None:
        """The compiled lesson (see `worker.compile.compile_lesson`), or None where it has not been computed yet."""
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
        digest = hashlib.sha256(__version__.encode())
        for path in _sources():
            digest.update(str(path.relative_to(PACKAGE)).encode() + path.read_bytes())
        model = self.folder / "demo-model" / "model.safetensors"
        if model.exists():
            digest.update(str(model.stat().st_size).encode())
        return digest.hexdigest()


def _sources() -> Iterator[Path]:
    for folder in COMPUTES:
        yield from sorted((PACKAGE / folder).rglob("*.py"))
    for name in WRITES:
        yield PACKAGE / "studio" / "worker" / f"{name}.py"


def _split(text: str, path: Path) -> tuple[dict[str, Any], str]:
    """Head and body of a text file of the content."""
    found = re.match(r"\+\+\+\n(.*?)\n\+\+\+\n(.*)", text, re.DOTALL)
    if not found:
        raise FileError("has no head", where=str(path), fix="Begin with a line +++, TOML, and another line +++")
    try:
        return tomllib.loads(found[1]), found[2]
    except tomllib.TOMLDecodeError as error:
        raise FileError(f"head is not valid TOML ({error})", where=str(path), fix="Correct it") from error


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FileError(f"cannot be read ({error})", where=str(path), fix="Correct it, or install again") from error
