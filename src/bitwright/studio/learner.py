"""What the studio remembers of those who learn: profiles, settings, lessons, answers, and days in a row.

Plain functions over a `Database`; each is one transaction and raises what `Database.begin` or `read` raises. `learner`
is a profile's number. `when` is a moment with the time zone that the learner lives in: its date is the day that
counts for the streak. A `place` is where a question stands: `lesson:scale-and-zero-point`, `today:2026-11-23`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.dialects import postgresql, sqlite

from bitwright.errors import InputError, ResourceError
from bitwright.studio.db import Database, answers, days, learners, lessons

YOU = "You"
"""Name of the profile that is made on first use."""
LONGEST = 60
"""Characters that a profile's name may have."""
GUEST = 0
"""Number of the learner while nobody has a profile and none can be made: pages can be read, nothing is kept."""
RECORD = "bitwright-record"
VERSION = 1
"""Version of what `export` writes."""

State = Literal["todo", "started", "done"]


class Settings(BaseModel):
    """How the studio looks and what it tells a learner."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    theme: Literal["auto", "light", "dark"] = "auto"
    motion: Literal["auto", "reduced"] = "auto"
    difficulty: bool = True
    """Show how difficult problems are."""
    streak: bool = True
    """Show days in a row."""


@dataclass(frozen=True)
class Learner:
    """A profile."""

    id: int
    name: str
    created: datetime


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


# --- Profiles


def current(db: Database, id: int | None = None) -> Learner:
    """The profile `id`; where there is none of that number the oldest; where there is none at all a new one, "You".

    Where that one cannot be kept (a full disk), a guest: pages can be read, and what should be kept says why it is not.
    """
    with db.read() as connection:
        wanted = sa.case((learners.c.id == id, 0), else_=1)
        row = connection.execute(sa.select(learners).order_by(wanted, learners.c.id).limit(1)).first()
    if row is not None:
        return _learner(row)
    try:
        with db.begin() as connection:
            _insert(db, connection, learners, [{"name": YOU, "created": datetime.now(UTC)}])
            return _learner(connection.execute(sa.select(learners).order_by(learners.c.id).limit(1)).one())
    except ResourceError:
        return Learner(GUEST, YOU, datetime.now(UTC))


def everyone(db: Database) -> list[Learner]:
    """All profiles, oldest first."""
    with db.read() as connection:
        return [_learner(row) for row in connection.execute(sa.select(learners).order_by(learners.c.id))]


def add(db: Database, name: str) -> Learner:
    """A new profile. InputError where the name is empty, too long, not printable or taken."""
    name = _name(name)
    with db.begin() as connection:
        made = _new(db, learners).values(name=name, created=datetime.now(UTC)).returning(learners)
        row = connection.execute(made).first()
        if row is None:
            raise _taken(name)
        return _learner(row)


def rename(db: Database, learner: int, name: str) -> Learner:
    """Give a profile another name. InputError as in `add`, or where there is no such profile."""
    name = _name(name)
    with db.begin() as connection:
        owner = connection.scalar(sa.select(learners.c.id).where(learners.c.name == name))
        if owner not in (None, learner):
            raise _taken(name)
        connection.execute(sa.update(learners).where(learners.c.id == learner).values(name=name))
        return _learner(_row(connection, learner))


def remove(db: Database, learner: int) -> None:
    """Remove a profile with all that is remembered of it; nothing happens where there is none."""
    with db.begin() as connection:
        connection.execute(sa.delete(learners).where(learners.c.id == learner))


def _learner(row: sa.Row[Any]) -> Learner:
    return Learner(row.id, row.name, row.created)


def _row(connection: sa.Connection, learner: int) -> sa.Row[Any]:
    row = connection.execute(sa.select(learners).where(learners.c.id == learner)).first()
    if row is None and learner == GUEST:
        fix = "Free some space on the disk, then reload the page"
        raise ResourceError("no profile could be made, so that nothing is kept", where="profile", fix=fix)
    if row is None:
        raise InputError("there is no such profile any more", where=f"profile {learner}", fix="Choose one in Settings")
    return row


def _name(name: str) -> str:
    name = " ".join(name.split())
    if not 0 < len(name) <= LONGEST or not _is_clean(name):
        what = f"a name has 1 to {LONGEST} characters, none of them a control character"
        raise InputError(what, where="name", fix="Choose another name")
    return name


def _taken(name: str) -> InputError:
    return InputError(f"there is a profile {name!r} already", where="name", fix="Choose another name")


# --- Settings


def load_settings(db: Database, learner: int) -> Settings:
    """The settings of a profile, the usual ones where none were chosen or another version's do not fit."""
    with db.read() as connection:
        return _settings(connection.scalar(sa.select(learners.c.settings).where(learners.c.id == learner)))


def _settings(kept: dict[str, Any] | None) -> Settings:
    given = {name: value for name, value in (kept or {}).items() if name in Settings.model_fields}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        bad = {problem["loc"][0] for problem in error.errors()}
        return Settings.model_validate({name: value for name, value in given.items() if name not in bad})


def save_settings(db: Database, learner: int, settings: Settings) -> None:
    """Keep the settings of a profile. InputError where there is no such profile."""
    with db.begin() as connection:
        _row(connection, learner)
        _keep_settings(connection, learner, settings)


def _keep_settings(connection: sa.Connection, learner: int, settings: Settings) -> None:
    mine = learners.c.id == learner
    kept = connection.scalar(sa.select(learners.c.settings).where(mine)) or {}
    others = {name: value for name, value in kept.items() if name not in Settings.model_fields}  # the tutor's server
    connection.execute(sa.update(learners).where(mine).values(settings={**others, **settings.model_dump()}))


# --- Lessons and answers


def visit(db: Database, learner: int, slug: str, section: str, when: datetime) -> None:
    """A lesson is being read at `section` (empty: its beginning); an earlier visit than the last changes nothing."""
    slug, section = _text("slug", slug), _text("section", section, least=0)
    with db.begin() as connection:
        _row(connection, learner)
        _lesson(db, connection, learner, slug, when)
        connection.execute(
            sa.update(lessons)
            .where(_at(learner, slug), lessons.c.visited <= when)
            .values(section=section, visited=when)
        )
        _insert(db, connection, days, [{"learner": learner, "day": when.date()}])


def finish(db: Database, learner: int, slug: str, when: datetime) -> None:
    """A lesson is done; one that was done already stays done since then."""
    slug = _text("slug", slug)
    with db.begin() as connection:
        _row(connection, learner)
        _lesson(db, connection, learner, slug, when)
        undone = lessons.c.finished.is_(None)
        connection.execute(sa.update(lessons).where(_at(learner, slug), undone).values(finished=when))
        _insert(db, connection, days, [{"learner": learner, "day": when.date()}])


def unfinish(db: Database, learner: int, slug: str) -> None:
    """A lesson is not done after all; that it was begun stays true."""
    with db.begin() as connection:
        connection.execute(sa.update(lessons).where(_at(learner, slug)).values(finished=None))


def answer(db: Database, learner: int, place: str, question: str, choice: int, right: bool, when: datetime) -> None:
    """Keep a try at a question. Every try is kept, the first counts; the same moment twice is the same try."""
    row = {"learner": learner, "place": _text("place", place), "question": _text("question", question)}
    with db.begin() as connection:
        _row(connection, learner)
        _insert(db, connection, answers, [{**row, "moment": when, "choice": choice, "right": right}])
        _insert(db, connection, days, [{"learner": learner, "day": when.date()}])


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


def streak(db: Database, learner: int, today: date) -> int:
    """Days in a row on which something was read, finished or answered, up to today, or yesterday where today is not
    one of them yet. Days after today (the clock was put back) do not count."""
    mine = sa.select(days.c.day).where(days.c.learner == learner, days.c.day <= today)
    with db.read() as connection:
        return in_a_row(connection.execute(mine.order_by(days.c.day.desc())).scalars(), today)


def in_a_row(active: Iterable[date], today: date) -> int:
    """How many of `active` (different days, none after today, the latest first) are in a row that ends today or
    yesterday."""
    count, expected = 0, today
    for day in active:
        if count == 0 and day == today - timedelta(1):
            expected = day
        if day != expected:
            break
        count, expected = count + 1, day - timedelta(1)
    return count


def _at(learner: int, slug: str) -> sa.ColumnElement[bool]:
    return sa.and_(lessons.c.learner == learner, lessons.c.slug == slug)


def _lesson(db: Database, connection: sa.Connection, learner: int, slug: str, when: datetime) -> None:
    """See that there is a row for a lesson, begun now where there was none."""
    row = {"learner": learner, "slug": slug, "section": "", "started": when, "visited": when}
    _insert(db, connection, lessons, [row])


def _new(db: Database, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """An insert that leaves what is there already as it is."""
    insert = sqlite.insert(table) if db.is_sqlite else postgresql.insert(table)
    return insert.on_conflict_do_nothing()


def _insert(db: Database, connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Insert what is not there yet."""
    if rows:
        connection.execute(_new(db, table), rows)


def _text(where: str, text: str, least: int = 1, most: int = 200) -> str:
    if not least <= len(text) <= most or not _is_clean(text):
        raise InputError(f"{text[:40]!r} cannot be one", where=where, fix="Reload the page")
    return text


def _is_clean(text: str) -> bool:
    """Whether both engines can store it: no control characters, no halves of a surrogate pair."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


# --- A learner's record as plain JSON


def _clean(text: str) -> str:
    if not _is_clean(text):
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
        row = _row(connection, learner)
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
        settings=_settings(row.settings),
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
        _row(connection, learner)
        if record.settings is not None:
            _keep_settings(connection, learner, record.settings)
        mine = sa.select(lessons).where(lessons.c.learner == learner)
        there = {row.slug: row for row in connection.execute(mine)}
        for lesson in record.lessons:
            old = there.get(lesson.slug)
            values = lesson.model_dump()
            if old is None:
                _insert(db, connection, lessons, [{"learner": learner, **values}])
                continue
            later = lesson.visited > old.visited
            values["started"] = min(lesson.started, old.started)
            values["visited"] = max(lesson.visited, old.visited)
            values["section"] = lesson.section if later else old.section
            values["finished"] = min((f for f in (lesson.finished, old.finished) if f is not None), default=None)
            connection.execute(sa.update(lessons).where(_at(learner, lesson.slug)).values(values))
        tried = [a.model_dump(exclude={"when"}) | {"learner": learner, "moment": a.when} for a in record.answers]
        _insert(db, connection, answers, tried)
        _insert(db, connection, days, [{"learner": learner, "day": day} for day in record.days])


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
