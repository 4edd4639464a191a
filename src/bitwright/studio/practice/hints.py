"""Hints that a learner has seen; the last one is the approach.

Plain functions over a `Database`; each is one transaction and raises what `Database.begin` or `read` raises. `learner`
is a profile's number, `problem` a slug, `when` a moment with the time zone that the learner lives in.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from bitwright.errors import InputError
from bitwright.studio.practice import reviews
from bitwright.studio.store.database import Database
from bitwright.studio.store.learners import lock
from bitwright.studio.store.schema import hints, submissions

APPROACH = 4
"""Number of the last hint, which is the approach."""


def seen(db: Database, learner: int, problem: str) -> list[int]:
    """Numbers of the hints that were seen, in order; APPROACH for the approach."""
    wanted = (
        sa.select(hints.c.number).where(hints.c.learner == learner, hints.c.problem == problem).order_by(hints.c.number)
    )
    with db.read() as connection:
        return list(connection.execute(wanted).scalars())


def knows_approach(db: Database, learner: int, problem: str) -> bool:
    """Whether the approach is no secret any more: it was seen, or the problem was solved."""
    accepted = sa.select(submissions.c.id).where(
        submissions.c.learner == learner, submissions.c.problem == problem, submissions.c.verdict == "AC"
    )
    with db.read() as connection:
        solved = connection.scalar(accepted.limit(1)) is not None
    return solved or APPROACH in seen(db, learner, problem)


def see(db: Database, learner: int, problem: str, number: int, when: datetime) -> None:
    """Remember that a hint was asked for. InputError where one before it was not seen yet, or there is none such.

    The approach is free once the problem was solved; before that it can be a giving up, see `reviews`.
    """
    with db.begin() as connection:
        lock(connection, learner)
        before = set(
            connection.execute(
                sa.select(hints.c.number).where(hints.c.learner == learner, hints.c.problem == problem)
            ).scalars()
        )
        accepted = sa.select(submissions.c.id).where(
            submissions.c.learner == learner, submissions.c.problem == problem, submissions.c.verdict == "AC"
        )
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
