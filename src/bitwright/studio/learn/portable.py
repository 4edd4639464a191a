"""A learner's record as plain JSON to take along, and back: lossless, and twice the same as once."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from bitwright.errors import InputError
from bitwright.studio.learn.record import at
from bitwright.studio.store.database import Database
from bitwright.studio.store.learners import row_of
from bitwright.studio.store.schema import answers, days, lessons
from bitwright.studio.store.settings import Settings, keep, parse
from bitwright.studio.store.text import is_clean

RECORD = "bitwright-record"
VERSION = 1
"""Version of what `export` writes."""


def _clean(text: str) -> str:
    if not is_clean(text):
        raise ValueError("has control characters")
    return text


_Text = Annotated[str, Field(max_length=200), AfterValidator(_clean)]
_Name = Annotated[_Text, Field(min_length=1)]
_When = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(9000, 1, 1, tzinfo=UTC))]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _LessonRecord(_Part):
    slug: _Name
    section: _Text = ""
    started: _When
    visited: _When
    finished: _When | None = None


class _AnswerRecord(_Part):
    place: _Name
    question: _Name
    choice: int = Field(ge=1, le=1000)
    right: bool
    when: _When


class _Record(_Part):
    format: Literal["bitwright-record"]
    version: int = Field(ge=1, le=VERSION)
    name: str = ""
    settings: Settings | None = None
    lessons: list[_LessonRecord] = Field(default=[], max_length=10_000)
    answers: list[_AnswerRecord] = Field(default=[], max_length=100_000)
    days: list[date] = Field(default=[], max_length=100_000)


def export(db: Database, learner: int) -> dict[str, Any]:
    """All that is remembered of a profile, as plain JSON that `restore` takes. InputError where there is none."""
    with db.read() as connection:
        row = row_of(connection, learner)
        read = [
            connection.execute(sa.select(table).where(table.c.learner == learner).order_by(*order)).all()
            for table, order in (
                (lessons, (lessons.c.started, lessons.c.slug)),
                (answers, (answers.c.moment, answers.c.id)),
                (days, (days.c.day,)),
            )
        ]
    record = _Record(
        format=RECORD,
        version=VERSION,
        name=row.name,
        settings=parse(row.settings),
        lessons=[
            _LessonRecord(slug=r.slug, section=r.section, started=r.started, visited=r.visited, finished=r.finished)
            for r in read[0]
        ],
        answers=[
            _AnswerRecord(place=r.place, question=r.question, choice=r.choice, right=r.right, when=r.moment)
            for r in read[1]
        ],
        days=[r.day for r in read[2]],
    )
    return record.model_dump(mode="json")


def restore(db: Database, learner: int, data: Any) -> None:
    """Bring what `export` wrote back into a profile: nothing that is there is lost, and twice is the same as once.

    Settings become the record's, a lesson was begun and finished when it first was, its section is that of the later
    visit, answers and days are joined; the profile keeps its name. InputError names what in `data` does not fit.
    """
    record = _parse(data)
    with db.begin() as connection:
        row_of(connection, learner)
        if record.settings is not None:
            keep(connection, learner, record.settings)
        mine = sa.select(lessons).where(lessons.c.learner == learner)
        there = {row.slug: row for row in connection.execute(mine)}
        for lesson in record.lessons:
            old = there.get(lesson.slug)
            values = lesson.model_dump()
            if old is None:
                db.insert_new(connection, lessons, [{"learner": learner, **values}])
                continue
            later = lesson.visited > old.visited
            values["started"] = min(lesson.started, old.started)
            values["visited"] = max(lesson.visited, old.visited)
            values["section"] = lesson.section if later else old.section
            values["finished"] = min((f for f in (lesson.finished, old.finished) if f is not None), default=None)
            connection.execute(sa.update(lessons).where(at(learner, lesson.slug)).values(values))
        tried = [a.model_dump(exclude={"when"}) | {"learner": learner, "moment": a.when} for a in record.answers]
        db.insert_new(connection, answers, tried)
        db.insert_new(connection, days, [{"learner": learner, "day": day} for day in record.days])


def _parse(data: Any) -> _Record:
    fix = "Choose a file that the studio wrote (Settings, Download)"
    if not isinstance(data, dict) or data.get("format") != RECORD:
        raise InputError("not a learner's record", where="record", fix=fix)
    version = data.get("version")
    if isinstance(version, int) and version > VERSION:
        what = f"written by a newer Bitwright (version {version}, this one knows up to {VERSION})"
        raise InputError(what, where="record", fix="Update Bitwright: pip install -U bitwright")
    try:
        record = _Record.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(first["msg"].lower(), where=f"record: {place}", fix=fix) from error
    slugs = [lesson.slug for lesson in record.lessons]
    if len(set(slugs)) < len(slugs):
        twice = next(slug for slug in slugs if slugs.count(slug) > 1)
        raise InputError(f"lesson {twice!r} stands there twice", where="record: lessons", fix=fix)
    return record
