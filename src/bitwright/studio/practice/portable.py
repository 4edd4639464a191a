"""What a learner did with problems as one JSON object to take along, and back: lossless, and twice the same as once."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fsrs import Rating
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from bitwright.errors import InputError
from bitwright.judge.problem import SLUG
from bitwright.judge.verdict import Verdict
from bitwright.studio.learn import portable as record
from bitwright.studio.practice import reviews
from bitwright.studio.practice.desk import MOST_OWN, NOTE, OWN
from bitwright.studio.practice.hints import APPROACH
from bitwright.studio.practice.text import CODE, code_of, plain, text_of
from bitwright.studio.store.database import Database
from bitwright.studio.store.learners import lock
from bitwright.studio.store.schema import cards, drafts, hints, notes, own_tests, submissions

FORMAT = "bitwright-practice"
VERSION = 1
MOST = 5000
"""Problems that may come along."""
FIX = "Choose what the studio exported (Practice, Export)"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


_When = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(9000, 1, 1, tzinfo=UTC))]
_Code = Annotated[str, Field(max_length=CODE)]


class Text(_Part):
    """A draft or a note."""

    text: str = Field(max_length=NOTE)
    when: _When


class Own(_Part):
    """A test of one's own."""

    name: str = Field(max_length=60)
    text: str = Field(max_length=OWN)


class Hint(_Part):
    """A hint that was seen."""

    number: int = Field(ge=1, le=APPROACH)
    when: _When


class Card(_Part):
    """State of the spaced repetition, as fsrs writes it."""

    state: dict[str, Any]
    due: date


class Tried(_Part):
    """A submission with its verdict."""

    when: _When
    code: _Code
    verdict: Verdict
    result: dict[str, Any] | None = None
    cpu: float | None = None
    memory: int | None = Field(None, ge=0, lt=2**62)
    counted: bool
    rank: dict[str, float] | None = None


class Work(_Part):
    """All that was done with one problem."""

    draft: Text | None = None
    note: Text | None = None
    own: list[Own] = Field(default=[], max_length=MOST_OWN)
    hints: list[Hint] = Field(default=[], max_length=APPROACH)
    card: Card | None = None
    submissions: list[Tried] = Field(default=[], max_length=10_000)


class Practice(_Part):
    """A learner's practice, and their record (see `learn.portable`)."""

    format: Literal["bitwright-practice"]
    version: int = Field(ge=1, le=VERSION)
    learner: dict[str, Any] | None = None
    problems: dict[str, Work] = Field(default={}, max_length=MOST)


def gather(db: Database, learner: int) -> Practice:
    """All that is remembered of a learner's practice; submissions without a verdict are left out."""
    told = record.export(db, learner)
    found: dict[str, Work] = {}

    def work(row: Any) -> Work:
        return found.setdefault(row.problem, Work())

    with db.read() as connection:

        def rows(table: sa.Table, *order: Any) -> Any:
            return connection.execute(sa.select(table).where(table.c.learner == learner).order_by(*order))

        for row in rows(drafts, drafts.c.problem):
            work(row).draft = Text(text=row.code, when=row.moment)
        for row in rows(notes, notes.c.problem):
            work(row).note = Text(text=row.text, when=row.moment)
        for row in rows(own_tests, own_tests.c.id):
            work(row).own.append(Own(name=row.name, text=row.text))
        for row in rows(hints, hints.c.problem, hints.c.number):
            work(row).hints.append(Hint(number=row.number, when=row.moment))
        for row in rows(cards, cards.c.problem):
            work(row).card = Card(state=row.state, due=row.due)
        for row in rows(submissions, submissions.c.moment, submissions.c.id):
            if row.verdict is not None:
                work(row).submissions.append(
                    Tried(
                        when=row.moment, code=row.code, verdict=Verdict(row.verdict), result=row.result, cpu=row.cpu,
                        memory=row.memory, counted=row.counted, rank=row.rank,
                    )
                )  # fmt: skip
    return Practice(format=FORMAT, version=VERSION, learner=told, problems=dict(sorted(found.items())))


def restore(db: Database, learner: int, practice: Practice) -> dict[str, int]:
    """Bring practice into a profile; how many problems, submissions, notes, drafts and tests of one's own came new.

    Of two drafts or notes the later stays, of two cards the one reviewed later, of a hint the first time; submissions
    and tests are joined. InputError where something does not fit; then nothing of the practice is changed.
    """
    counts = {"problems": 0, "submissions": 0, "notes": 0, "drafts": 0, "own": 0}
    for slug, work in practice.problems.items():
        _look(slug, work)
    if practice.learner is not None:
        record.restore(db, learner, practice.learner)
    with db.begin() as connection:
        lock(connection, learner)
        for slug, work in practice.problems.items():
            new = _restore(connection, learner, slug, work)
            counts["problems"] += any(new.values())
            for name, count in new.items():
                counts[name] += count
    return counts


def _look(slug: str, work: Work) -> None:
    if len(slug) > 100 or not SLUG.fullmatch(slug):
        raise InputError(f"{slug[:40]!r} is not a problem's name", where="problems", fix=FIX)
    texts = [("draft", work.draft.text if work.draft else ""), ("note", work.note.text if work.note else "")]
    texts += [(name, text) for one in work.own for name, text in (("name", one.name), ("test", one.text))]
    texts += [("code", one.code) for one in work.submissions]
    for where, text in texts:
        text_of(f"{slug}: {where}", text, NOTE)
    for code in ([work.draft.text] if work.draft else []) + [one.code for one in work.submissions]:
        code_of(code)
    if len({one.number for one in work.hints}) < len(work.hints):
        raise InputError("a hint stands there twice", where=slug, fix=FIX)
    if work.card is not None:
        try:
            reviews.review(work.card.state, Rating.Good, work.card.due)
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise InputError(f"its card cannot be read ({error})", where=slug, fix=FIX) from error


def _restore(connection: sa.Connection, learner: int, slug: str, work: Work) -> dict[str, int]:
    """What came new of one problem."""
    key = {"learner": learner, "problem": slug}

    def mine(table: sa.Table) -> Any:
        return connection.execute(sa.select(table).where(table.c.learner == learner, table.c.problem == slug)).all()

    def put(table: sa.Table, there: bool, values: dict[str, Any]) -> None:
        if there:
            at = sa.and_(table.c.learner == learner, table.c.problem == slug)
            connection.execute(sa.update(table).where(at).values(**values))
        else:
            connection.execute(sa.insert(table).values(**key, **values))

    new = {"drafts": 0, "notes": 0, "own": 0, "submissions": 0}
    for name, table, given, field in (("drafts", drafts, work.draft, "code"), ("notes", notes, work.note, "text")):
        old = mine(table)
        if given is not None and (not old or given.when > old[0].moment):
            new[name] += not old or getattr(old[0], field) != given.text
            put(table, bool(old), {field: given.text, "moment": given.when})
    known = {(row.name, row.text) for row in mine(own_tests)}
    for one in work.own:
        if (one.name, one.text) not in known and len(known) < MOST_OWN:
            known.add((one.name, one.text))
            connection.execute(sa.insert(own_tests).values(**key, name=one.name, text=one.text))
            new["own"] += 1
    seen = {row.number: row.moment for row in mine(hints)}
    for hint in work.hints:
        if hint.number not in seen:
            connection.execute(sa.insert(hints).values(**key, number=hint.number, moment=hint.when))
        elif hint.when < seen[hint.number]:
            at = sa.and_(hints.c.learner == learner, hints.c.problem == slug, hints.c.number == hint.number)
            connection.execute(sa.update(hints).where(at).values(moment=hint.when))
    card = mine(cards)
    if work.card is not None and (not card or _reviewed(work.card.state) > _reviewed(card[0].state)):
        put(cards, bool(card), {"state": work.card.state, "due": work.card.due})
    moments = {row.moment for row in mine(submissions)}
    for tried in work.submissions:
        if tried.when not in moments:
            values = tried.model_dump(exclude={"when", "verdict", "result", "rank"}) | {
                "verdict": tried.verdict.value, "result": plain(tried.result), "rank": plain(tried.rank),
            }  # fmt: skip
            connection.execute(sa.insert(submissions).values(**key, **values, moment=tried.when))
            new["submissions"] += 1
    return new


def _reviewed(state: dict[str, Any]) -> str:
    return str(state.get("last_review") or "")


def parse(data: Any) -> Practice:
    """Practice from JSON. InputError says what does not fit."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError("not a learner's practice", where="record.json", fix=FIX)
    version = data.get("version")
    if isinstance(version, int) and version > VERSION:
        what = f"written by a newer Bitwright (version {version}, this one knows up to {VERSION})"
        raise InputError(what, where="record.json", fix="Update Bitwright: pip install -U bitwright")
    try:
        return Practice.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ": ".join(str(part) for part in first["loc"])
        raise InputError(first["msg"].lower(), where=place, fix=FIX) from error
