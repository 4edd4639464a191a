"""What a learner did with lessons: where they are, what they finished, what they answered.

Plain functions over a `Database`; each is one transaction and raises what `Database.begin` or `read` raises. `learner`
is a profile's number. `when` is a moment with the time zone that the learner lives in: its date is the day that
counts for the streak. A `place` is where a question stands: `lesson:scale-and-zero-point`, `today:2026-11-23`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

import sqlalchemy as sa

from bitwright.studio.store.database import Database
from bitwright.studio.store.learners import row_of
from bitwright.studio.store.schema import answers, days, lessons
from bitwright.studio.store.text import name_of

State = Literal["todo", "started", "done"]


@dataclass(frozen=True)
class Lesson:
    """What a learner did in a lesson. `section` is where they read last; `right` of `answered` questions were right
    on the first try. The moments (UTC) are None where it did not happen."""

    slug: str
    state: State = "todo"
    section: str = ""
    started: datetime | None = None
    visited: datetime | None = None
    finished: datetime | None = None
    right: int = 0
    answered: int = 0


@dataclass(frozen=True)
class Progress:
    """All lessons that a learner has begun, by slug; `right` of `answered` questions everywhere, first tries."""

    lessons: dict[str, Lesson] = field(default_factory=dict)
    right: int = 0
    answered: int = 0

    def lesson(self, slug: str) -> Lesson:
        """A lesson's record, an empty one where it was not begun."""
        return self.lessons.get(slug) or Lesson(slug)

    def state(self, slug: str) -> State:
        """todo, started or done."""
        return self.lesson(slug).state


@dataclass(frozen=True)
class Try:
    """One answer: `choice` counts from 1."""

    question: str
    choice: int
    right: bool
    when: datetime


def visit(db: Database, learner: int, slug: str, section: str, when: datetime) -> None:
    """A lesson is being read at `section` (empty: its beginning); an earlier visit than the last changes nothing."""
    slug, section = name_of("slug", slug), name_of("section", section, least=0)
    with db.begin() as connection:
        row_of(connection, learner)
        _lesson(db, connection, learner, slug, when)
        connection.execute(
            sa.update(lessons).where(at(learner, slug), lessons.c.visited <= when).values(section=section, visited=when)
        )
        db.insert_new(connection, days, [{"learner": learner, "day": when.date()}])


def finish(db: Database, learner: int, slug: str, when: datetime) -> None:
    """A lesson is done; one that was done already stays done since then."""
    slug = name_of("slug", slug)
    with db.begin() as connection:
        row_of(connection, learner)
        _lesson(db, connection, learner, slug, when)
        undone = lessons.c.finished.is_(None)
        connection.execute(sa.update(lessons).where(at(learner, slug), undone).values(finished=when))
        db.insert_new(connection, days, [{"learner": learner, "day": when.date()}])


def unfinish(db: Database, learner: int, slug: str) -> None:
    """A lesson is not done after all; that it was begun stays true."""
    with db.begin() as connection:
        connection.execute(sa.update(lessons).where(at(learner, slug)).values(finished=None))


def answer(db: Database, learner: int, place: str, question: str, choice: int, right: bool, when: datetime) -> None:
    """Keep a try at a question. Every try is kept, the first counts; the same moment twice is the same try."""
    row = {"learner": learner, "place": name_of("place", place), "question": name_of("question", question)}
    with db.begin() as connection:
        row_of(connection, learner)
        db.insert_new(connection, answers, [{**row, "moment": when, "choice": choice, "right": right}])
        db.insert_new(connection, days, [{"learner": learner, "day": when.date()}])


def tries(db: Database, learner: int, place: str) -> list[Try]:
    """All answers at a place, oldest first."""
    mine = sa.select(answers).where(answers.c.learner == learner, answers.c.place == place)
    with db.read() as connection:
        rows = connection.execute(mine.order_by(answers.c.moment, answers.c.id))
        return [Try(row.question, row.choice, row.right, row.moment) for row in rows]


def progress(db: Database, learner: int) -> Progress:
    """All that a learner did so far."""
    with db.read() as connection:
        rows = connection.execute(sa.select(lessons).where(lessons.c.learner == learner)).all()
        mine = sa.select(answers).where(answers.c.learner == learner)
        given = connection.execute(mine.order_by(answers.c.moment, answers.c.id)).all()
    first: dict[tuple[str, str], bool] = {}
    for one in given:
        first.setdefault((one.place, one.question), one.right)
    scores: dict[str, list[bool]] = {}
    for (place, _), right in first.items():
        if place.startswith("lesson:"):
            scores.setdefault(place.removeprefix("lesson:"), []).append(right)
    found = {slug: Lesson(slug, "started") for slug in scores}
    for row in rows:
        state: State = "started" if row.finished is None else "done"
        found[row.slug] = Lesson(row.slug, state, row.section, row.started, row.visited, row.finished)
    for slug, score in scores.items():
        found[slug] = replace(found[slug], right=sum(score), answered=len(score))
    return Progress(found, right=sum(first.values()), answered=len(first))


def last(db: Database, learner: int) -> Lesson | None:
    """The lesson that was read last, to go on where it was left; None before the first."""
    begun = [(lesson.visited, lesson) for lesson in progress(db, learner).lessons.values() if lesson.visited]
    return max(begun, key=lambda pair: pair[0])[1] if begun else None


def at(learner: int, slug: str) -> sa.ColumnElement[bool]:
    """The row of a lesson."""
    return sa.and_(lessons.c.learner == learner, lessons.c.slug == slug)


def _lesson(db: Database, connection: sa.Connection, learner: int, slug: str, when: datetime) -> None:
    """See that there is a row for a lesson, begun now where there was none."""
    row = {"learner": learner, "slug": slug, "section": "", "started": when, "visited": when}
    db.insert_new(connection, lessons, [row])
