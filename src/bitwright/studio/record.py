"""What a learner did with problems: drafts, notes, tests of their own, hints seen, submissions.

Plain functions over a `Database`; each is one transaction and raises what `Database.begin` or `read` raises, and
InputError for text that is too long or cannot be kept. `learner` is a profile's number, `problem` a slug, `when` a
moment with the time zone that the learner lives in: its date is the day that counts for days in a row and reviews.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from bitwright.errors import InputError
from bitwright.studio import jobs, reviews
from bitwright.studio.db import Database, cards, days, drafts, hints, learners, metadata, notes, own_tests, submissions

KIND = "judge"
"""Kind of the jobs that judge submissions."""
ATTEMPTS = 5
"""How often judging a submission is begun before it is given up as IE."""
CODE = 64 << 10
"""Bytes that a program may have."""
NOTE = 100_000
"""Characters that a note may have."""
OWN = 20_000
"""Characters that a test of one's own may have."""
MOST_OWN = 50
"""Tests of one's own that a problem may have."""
APPROACH = 4
"""Number of the last hint, which is the approach."""
LISTED = 100
"""Submissions that a list shows."""

State = Literal["todo", "tried", "solved"]


@dataclass(frozen=True)
class Standing:
    """Where a learner stands with a problem: solved once accepted, tried after a draft or a counted submission."""

    state: State = "todo"
    tries: int = 0
    due: date | None = None
    """The day on which it comes back, see `reviews`."""


@dataclass(frozen=True)
class Submission:
    """A submission; `verdict` is None while it waits, `result` is as `judge.verdict.Result.json` wrote it."""

    id: int
    learner: int
    problem: str
    code: str
    moment: datetime
    verdict: str | None
    result: dict[str, Any] | None
    cpu: float | None
    memory: int | None
    counted: bool
    rank: dict[str, float] | None


_SUBMISSION = [
    submissions.c[name]
    for name in ("id", "learner", "problem", "code", "moment", "verdict", "result", "cpu", "memory", "counted", "rank")
]


# --- Drafts, notes, own tests


def draft(db: Database, learner: int, problem: str) -> str | None:
    """The program in the editor, None where it is the starter."""
    with db.read() as connection:
        found: str | None = connection.scalar(sa.select(drafts.c.code).where(_at(drafts, learner, problem)))
        return found


def keep_draft(db: Database, learner: int, problem: str, code: str, when: datetime) -> None:
    """Keep the program in the editor."""
    _put(db, drafts, learner, problem, {"code": code_of(code), "moment": when})


def drop_draft(db: Database, learner: int, problem: str) -> None:
    """Back to the starter."""
    with db.begin() as connection:
        connection.execute(sa.delete(drafts).where(_at(drafts, learner, problem)))


def note(db: Database, learner: int, problem: str) -> str:
    """The learner's note on a problem, in Markdown; empty where there is none."""
    with db.read() as connection:
        return connection.scalar(sa.select(notes.c.text).where(_at(notes, learner, problem))) or ""


def keep_note(db: Database, learner: int, problem: str, text: str, when: datetime) -> None:
    """Keep a note; an empty one is forgotten."""
    text = text_of("note", text, NOTE)
    if text:
        _put(db, notes, learner, problem, {"text": text, "moment": when})
    else:
        with db.begin() as connection:
            connection.execute(sa.delete(notes).where(_at(notes, learner, problem)))


def own(db: Database, learner: int, problem: str) -> list[dict[str, Any]]:
    """Tests of one's own: id, name and text, oldest first."""
    wanted = sa.select(own_tests.c.id, own_tests.c.name, own_tests.c.text).where(_at(own_tests, learner, problem))
    with db.read() as connection:
        return [dict(row._mapping) for row in connection.execute(wanted.order_by(own_tests.c.id))]


def add_own(db: Database, learner: int, problem: str, name: str, text: str) -> int:
    """A new test of one's own; its number. InputError where there are MOST_OWN already."""
    row = {
        "learner": learner,
        "problem": problem,
        "name": text_of("name", name, 60),
        "text": text_of("test", text, OWN),
    }
    with db.begin() as connection:
        lock(connection, learner)
        count = sa.select(sa.func.count()).where(_at(own_tests, learner, problem))
        if (connection.scalar(count) or 0) >= MOST_OWN:
            raise InputError(f"there are {MOST_OWN} already", where="tests of your own", fix="Remove one first")
        return int(connection.execute(sa.insert(own_tests).values(**row).returning(own_tests.c.id)).scalar_one())


def remove_own(db: Database, learner: int, problem: str, id: int) -> bool:
    """Forget a test of one's own; False where there is none of that number."""
    if not 0 < id < 2**31:
        return False
    mine = sa.and_(_at(own_tests, learner, problem), own_tests.c.id == id)
    with db.begin() as connection:
        return connection.execute(sa.delete(own_tests).where(mine)).rowcount == 1


# --- Hints


def seen(db: Database, learner: int, problem: str) -> list[int]:
    """Numbers of the hints that were seen, in order; APPROACH for the approach."""
    wanted = sa.select(hints.c.number).where(_at(hints, learner, problem)).order_by(hints.c.number)
    with db.read() as connection:
        return list(connection.execute(wanted).scalars())


def knows_approach(db: Database, learner: int, problem: str) -> bool:
    """Whether the approach is no secret any more: it was seen, or the problem was solved."""
    accepted = sa.select(submissions.c.id).where(_at(submissions, learner, problem), submissions.c.verdict == "AC")
    with db.read() as connection:
        solved = connection.scalar(accepted.limit(1)) is not None
    return solved or APPROACH in seen(db, learner, problem)


def see(db: Database, learner: int, problem: str, number: int, when: datetime) -> None:
    """Remember that a hint was asked for. InputError where one before it was not seen yet, or there is none such.

    The approach is free once the problem was solved; before that it can be a giving up, see `reviews`.
    """
    with db.begin() as connection:
        lock(connection, learner)
        before = set(connection.execute(sa.select(hints.c.number).where(_at(hints, learner, problem))).scalars())
        accepted = sa.select(submissions.c.id).where(_at(submissions, learner, problem), submissions.c.verdict == "AC")
        solved = connection.scalar(accepted.limit(1)) is not None
        if not 1 <= number <= APPROACH:
            raise InputError(f"there is no hint {number}", where="hint", fix=f"Ask for 1 to {APPROACH}")
        if number in before or (solved and number == APPROACH):
            return
        if not set(range(1, number)) <= before:
            raise InputError("the hints before it come first", where=f"hint {number}", fix=f"Ask for {len(before) + 1}")
        row = {"learner": learner, "problem": problem, "number": number, "moment": when}
        connection.execute(sa.insert(hints).values(**row))
        if number == APPROACH:
            reviews.given_up(db, connection, learner, problem, when, when.date())


# --- Submissions


def submit(
    db: Database, learner: int, problem: str, code: str, when: datetime, owner: str | None = None, seconds: float = 0.0
) -> tuple[int, int]:
    """Keep a submission together with the job that judges it, held by `owner` for `seconds` where one is given.

    Returns the numbers of both.
    """
    row = {"learner": learner, "problem": problem, "code": code_of(code), "moment": when, "counted": False}
    with db.begin() as connection:
        lock(connection, learner)
        id = int(connection.execute(sa.insert(submissions).values(**row).returning(submissions.c.id)).scalar_one())
        payload = {"submission": id, "day": when.date().isoformat()}
        job = jobs.add_within(db, connection, KIND, payload, limit=ATTEMPTS, owner=owner, seconds=seconds)
        connection.execute(sa.update(submissions).where(submissions.c.id == id).values(job=job))
        return id, job


def judged(
    db: Database, id: int, job: int, owner: str, result: dict[str, Any], day: date, rank: dict[str, float] | None = None
) -> bool:
    """Keep a verdict and end its job in one transaction; False, and nothing changed, where the job is not `owner`'s.

    An accepted one makes its day a day of learning, and is graded for reviews. IE is not counted.
    """
    verdict = str(result["verdict"])
    with db.begin() as connection:
        if not jobs.finish_within(db, connection, job, owner, {"verdict": verdict}):
            return False
        row = connection.execute(sa.select(submissions).where(submissions.c.id == id, submissions.c.verdict.is_(None)))
        found = row.first()
        if found is None:
            return True  # the learner was removed meanwhile
        lock(connection, found.learner)
        values = {
            "verdict": verdict, "result": plain(result), "cpu": result["cpu"], "memory": result["memory"],
            "counted": verdict != "IE", "rank": plain(rank),
        }  # fmt: skip
        connection.execute(sa.update(submissions).where(submissions.c.id == id).values(**values))
        if verdict == "AC":
            _insert(db, connection, days, {"learner": found.learner, "day": day})
            reviews.accepted(db, connection, found.learner, found.problem, found.moment, day)
        return True


def settle(db: Database) -> int:
    """Make submissions IE whose judging was given up; how many there were."""
    table = metadata.tables["jobs"]
    lost = sa.and_(table.c.kind == KIND, table.c.state == "failed")
    with db.read() as connection:
        if connection.scalar(sa.select(table.c.id).where(lost).limit(1)) is None:
            return 0
    sentence = "The judge itself failed, several times over"
    result = {"verdict": "IE", "words": "our fault, not counted", "sentence": sentence, "cases": [], "total": 0,
              "cpu": 0.0, "memory": 0, "tier": "", "reason": "", "line": 0, "growth": None}  # fmt: skip
    with db.begin() as connection:
        gone = connection.execute(sa.delete(table).where(lost).returning(table.c.id)).scalars().all()
        waits = sa.and_(submissions.c.job.in_(gone), submissions.c.verdict.is_(None))
        values = {"verdict": "IE", "result": result, "cpu": 0.0, "memory": 0}
        return connection.execute(sa.update(submissions).where(waits).values(**values)).rowcount


def get(db: Database, id: int) -> Submission | None:
    """A submission of anybody's, None where there is none of that number."""
    if not 0 < id < 2**31:
        return None
    with db.read() as connection:
        row = connection.execute(sa.select(*_SUBMISSION).where(submissions.c.id == id)).first()
    return None if row is None else Submission(**row._mapping)


def submission(db: Database, learner: int, problem: str, id: int) -> Submission:
    """A submission of the learner's. InputError where there is none of that number."""
    found = get(db, id)
    if found is None or (found.learner, found.problem) != (learner, problem):
        raise InputError("there is no such submission", where=f"submission {id}", fix="Reload the page")
    return found


def listed(db: Database, learner: int, problem: str) -> list[dict[str, Any]]:
    """The last submissions as lists show them, the newest first: id, at, verdict, words, sentence, cpu, memory."""
    wanted = sa.select(
        submissions.c.id, submissions.c.moment, submissions.c.verdict, submissions.c.cpu, submissions.c.memory,
        submissions.c.result["words"].as_string().label("words"),
        submissions.c.result["sentence"].as_string().label("sentence"),
    ).where(_at(submissions, learner, problem))  # fmt: skip
    with db.read() as connection:
        rows = connection.execute(wanted.order_by(submissions.c.id.desc()).limit(LISTED)).all()
    return [
        {"id": row.id, "at": row.moment.isoformat(), "verdict": row.verdict, "words": row.words or "being judged",
         "sentence": row.sentence or "Waits for its verdict", "cpu": row.cpu, "memory": row.memory}
        for row in rows
    ]  # fmt: skip


def standings(db: Database, learner: int) -> dict[str, Standing]:
    """Where the learner stands with every problem that was begun, by slug."""
    good = sa.func.max(sa.case((submissions.c.verdict == "AC", 1), else_=0)).label("good")
    tries = sa.func.sum(sa.case((submissions.c.counted, 1), else_=0)).label("tries")
    counted = sa.select(submissions.c.problem, good, tries).where(submissions.c.learner == learner)
    with db.read() as connection:
        tried = connection.execute(counted.group_by(submissions.c.problem)).all()
        begun = connection.execute(sa.select(drafts.c.problem).where(drafts.c.learner == learner)).scalars().all()
        back = connection.execute(sa.select(cards.c.problem, cards.c.due).where(cards.c.learner == learner)).all()
    due = {row.problem: row.due for row in back}
    found = {slug: Standing("tried", 0, due.get(slug)) for slug in (*begun, *due)}
    for row in tried:
        state: State = "solved" if row.good else "tried" if row.tries or row.problem in found else "todo"
        found[row.problem] = Standing(state, row.tries, due.get(row.problem))
    return found


def ranked(db: Database, problem: str) -> list[dict[str, Any]]:
    """Accepted submissions that were measured: id, learner's name, at, quality, bits; the oldest first."""
    wanted = (
        sa.select(submissions.c.id, learners.c.name, submissions.c.moment, submissions.c.rank)
        .join(learners, learners.c.id == submissions.c.learner)
        .where(submissions.c.problem == problem, submissions.c.verdict == "AC", submissions.c.rank.is_not(None))
    )
    with db.read() as connection:
        rows = connection.execute(wanted.order_by(submissions.c.id)).all()
    return [{"id": r.id, "name": r.name, "at": r.moment.isoformat(), **r.rank} for r in rows]


# --- What can be kept


def code_of(code: str) -> str:
    """A program that can be kept; InputError where it is too long."""
    if len(code.encode(errors="replace")) > CODE:
        raise InputError(f"the program is longer than {CODE >> 10} kB", where="code", fix="Make it shorter")
    return text_of("code", code, CODE)


def text_of(where: str, text: str, most: int) -> str:
    """Text that both engines can store, `most` characters at most; InputError otherwise."""
    if len(text) > most:
        raise InputError(f"longer than {most:,} characters", where=where, fix="Make it shorter")
    if "\0" in text or any("\ud800" <= one <= "\udfff" for one in text):
        raise InputError("has a character that is none", where=where, fix="Remove it")
    return text


def plain(value: Any, longest: int = 20_000) -> Any:
    """JSON that every reader takes: no NaN or infinity (None), no text longer than `longest`, lists likewise."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return str(value)[:longest].encode(errors="replace").decode()
    if isinstance(value, dict):
        return {str(key): plain(one, longest) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one, longest) for one in value[:longest]]
    return value


# --- Rows


def _at(table: sa.Table, learner: int, problem: str) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.learner == learner, table.c.problem == problem)


def lock(connection: sa.Connection, learner: int) -> None:
    """From here on one transaction at a time per learner; InputError where there is no such profile."""
    found = connection.scalar(sa.select(learners.c.id).where(learners.c.id == learner).with_for_update())
    if found is None:
        raise InputError("there is no such profile any more", where=f"profile {learner}", fix="Choose one in Settings")


def _put(db: Database, table: sa.Table, learner: int, problem: str, values: dict[str, Any]) -> None:
    """Insert a row, or give the one that is there new values."""
    insert = sqlite.insert(table) if db.is_sqlite else postgresql.insert(table)
    row = insert.values(learner=learner, problem=problem, **values)
    with db.begin() as connection:
        connection.execute(row.on_conflict_do_update(index_elements=["learner", "problem"], set_=values))


def _insert(db: Database, connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> None:
    """Insert what is not there yet."""
    insert = sqlite.insert(table) if db.is_sqlite else postgresql.insert(table)
    connection.execute(insert.values(**row).on_conflict_do_nothing())
