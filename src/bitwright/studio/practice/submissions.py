"""Submissions: kept with the job that judges them, and given their verdict in the transaction that ends it.

Plain functions over a `Database`; each is one transaction and raises what `Database.begin` or `read` raises, and
InputError for text that is too long or cannot be kept. `learner` is a profile's number, `problem` a slug, `when` a
moment with the time zone that the learner lives in: its date is the day that
counts for days in a row and reviews.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from bitwright.errors import InputError
from bitwright.studio.practice import reviews
from bitwright.studio.practice.text import code_of, plain
from bitwright.studio.store import jobs
from bitwright.studio.store.database import Database
from bitwright.studio.store.learners import lock
from bitwright.studio.store.schema import days, learners, metadata, submissions

KIND = "judge"
"""Kind of the jobs that judge submissions."""
ATTEMPTS = 5
"""How often judging a submission is begun before it is given up as IE."""
LISTED = 100
"""Submissions that a list shows."""


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
            db.insert_new(connection, days, [{"learner": found.learner, "day": day}])
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
    ).where(submissions.c.learner == learner, submissions.c.problem == problem)  # fmt: skip
    with db.read() as connection:
        rows = connection.execute(wanted.order_by(submissions.c.id.desc()).limit(LISTED)).all()
    return [
        {"id": row.id, "at": row.moment.isoformat(), "verdict": row.verdict, "words": row.words or "being judged",
         "sentence": row.sentence or "Waits for its verdict", "cpu": row.cpu, "memory": row.memory}
        for row in rows
    ]  # fmt: skip


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
