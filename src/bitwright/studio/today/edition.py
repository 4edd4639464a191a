"""The daily edition: one lesson to dive into, one question, one feature; the same for everyone on a date."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeVar

from bitwright.authoring.library import Library
from bitwright.errors import InputError
from bitwright.judge.problem import ProblemError

FIRST = date(2026, 1, 1)
"""No edition is older."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Edition:
    """What a date brings: slugs of a lesson, a feature and a problem to practise, and a question of another lesson as
    (lesson, number from 1)."""

    day: date
    lesson: str
    question: tuple[str, int]
    feature: str
    problem: str = ""
    """Empty where no problem is written yet."""

    @property
    def title(self) -> str:
        """The date in words: Monday, 23 November 2026."""
        return f"{self.day:%A}, {self.day.day} {self.day:%B %Y}"


def edition(library: Library, day: date) -> Edition:
    """The edition of a date: a pure function of the content and the date. InputError for a date before the first."""
    if day < FIRST:
        raise InputError(f"there is no edition of {day}", where="today", fix=f"The first is of {FIRST}")
    number = (day - FIRST).days
    lesson = _turn("lesson", library.lessons, number)
    others = [pair for pair in library.questions if pair[0] != lesson]
    slugs = library.shelf.slugs
    problem = _turn("problem", slugs, number) if slugs else ""
    feature = _turn("feature", tuple(library.features), number)
    return Edition(day, lesson, _turn("question", others, number), feature, problem)


def _turn(kind: str, items: Sequence[Item], number: int) -> Item:
    """Item number `number` of an endless sequence in which every item comes once in each round, shuffled anew."""
    if not items:
        raise InputError(f"there is no {kind} to choose from", where="content", fix="Write one, or install again")
    turn, place = divmod(number, len(items))
    return sorted(items, key=lambda item: hashlib.sha256(f"{kind} {turn} {item}".encode()).digest())[place]


def day_of(text: str) -> date:
    """A date as addresses and options write it; InputError where it is none."""
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            pass  # a day that no calendar has: told below
    raise InputError(f"{text!r} is not a date", where="date", fix="Write it as 2026-11-23")


def question_of(library: Library, chosen: Edition) -> dict[str, Any]:
    """The question of an edition, compiled; InputError where its lesson has not been computed yet."""
    slug, number = chosen.question
    found: dict[str, Any] = page_of(library, slug)["questions"][number - 1]
    return found


def problem_of(library: Library, chosen: Edition) -> dict[str, Any] | None:
    """The problem of an edition: slug, title, difficulty, minutes, and its statement as Markdown (`text`). None where
    there is none, or its folder cannot be read."""
    try:
        found = library.shelf.problem(chosen.problem) if chosen.problem else None
    except ProblemError:
        found = None
    if found is None:
        return None
    text = plain_text(found.statement.replace("[[ samples ]]", "")).replace("\n\n\n", "\n\n").strip()
    facts = {"slug": found.slug, "title": found.title, "difficulty": found.difficulty, "minutes": found.minutes}
    return {**facts, "text": text}


def plain_text(markdown: str) -> str:
    """Markdown without the colours that only pages show."""
    return re.sub(r":[a-z]+\[([^\]\n]+)\]", r"\1", markdown)


def page_of(library: Library, slug: str) -> dict[str, Any]:
    """The page of a lesson; InputError where it has not been computed yet."""
    page = library.page(slug)
    if page is None:
        raise InputError("has not been computed yet", where=f"lesson {slug}", fix="Open it once")
    return page
