"""When a solved problem comes back: spaced repetition (FSRS) graded from verdicts, day by day.

How an accepted submission is graded, by what happened since the one before it:

    Easy     the first ever, at the first try, without hints
    Good     a later one, at the first try, without hints
    Hard     after a failed submission, or with a hint or the approach seen since then
    Again    failed, then given up: the approach was read after a failed submission (no accepted one needed)

Before its day has come an accepted submission is practice and changes nothing. IE never counts. The same history gives
the same days on every machine: the moment of a review is the noon of the learner's day, and nothing is random.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from functools import cache
from typing import Any

import sqlalchemy as sa
from fsrs import Card, Rating, Scheduler

from bitwright.studio.store.database import Database
from bitwright.studio.store.schema import cards, hints, submissions

LONGEST = 365
"""Days after which a problem comes back at the latest."""


@cache
def _scheduler() -> Scheduler:
    """Without steps of minutes: a problem comes back after a day at the earliest."""
    return Scheduler(learning_steps=(), relearning_steps=(), maximum_interval=LONGEST, enable_fuzzing=False)


def grade(first: bool, failures: int, hints: int) -> Rating:
    """The grade of an accepted submission: whether it is the first, and failed submissions and hints before it."""
    if failures or hints:
        return Rating.Hard
    return Rating.Easy if first else Rating.Good


def review(state: dict[str, Any] | None, rating: Rating, day: date) -> tuple[dict[str, Any], date]:
    """A card after a review on `day`, and the day it is due; `state` is plain JSON, None for a new card."""
    when = datetime.combine(day, time(12), UTC)
    card = Card(card_id=0, due=when) if state is None else Card.from_dict(state)  # type: ignore[arg-type]
    card, _ = _scheduler().review_card(card, rating, when)
    return dict(card.to_dict()), card.due.date()


def accepted(db: Database, connection: sa.Connection, learner: int, problem: str, moment: datetime, day: date) -> None:
    """Grade the accepted submission of `moment` as a part of the caller's transaction."""
    state, is_due = _card(connection, learner, problem, day)
    if is_due:
        first, failures, seen = _episode(connection, learner, problem, moment)
        _keep(connection, learner, problem, state, grade(first, failures, seen), day)


def given_up(db: Database, connection: sa.Connection, learner: int, problem: str, moment: datetime, day: date) -> None:
    """The approach was read at `moment`: Again where a submission failed since the last accepted one."""
    state, is_due = _card(connection, learner, problem, day)
    if is_due and _episode(connection, learner, problem, moment)[1]:
        _keep(connection, learner, problem, state, Rating.Again, day)


def due(db: Database, learner: int) -> dict[str, date]:
    """The day on which each problem comes back, by slug."""
    with db.read() as connection:
        rows = connection.execute(sa.select(cards.c.problem, cards.c.due).where(cards.c.learner == learner))
        return {row.problem: row.due for row in rows}


def _card(connection: sa.Connection, learner: int, problem: str, day: date) -> tuple[dict[str, Any] | None, bool]:
    """The card's state, None where there is none, and whether a review on `day` counts."""
    mine = sa.and_(cards.c.learner == learner, cards.c.problem == problem)
    row = connection.execute(sa.select(cards.c.state, cards.c.due).where(mine)).first()
    return (None, True) if row is None else (row.state, row.due <= day)


def _episode(connection: sa.Connection, learner: int, problem: str, moment: datetime) -> tuple[bool, int, int]:
    """Whether nothing was accepted before `moment`; failed submissions and hints since the last that was."""
    mine = sa.and_(submissions.c.learner == learner, submissions.c.problem == problem, submissions.c.moment < moment)
    last = connection.scalar(sa.select(sa.func.max(submissions.c.moment)).where(mine, submissions.c.verdict == "AC"))
    failed = sa.select(sa.func.count()).where(mine, submissions.c.counted, submissions.c.verdict != "AC")
    seen = sa.select(sa.func.count()).where(
        hints.c.learner == learner, hints.c.problem == problem, hints.c.moment < moment
    )
    if last is not None:
        failed, seen = failed.where(submissions.c.moment > last), seen.where(hints.c.moment > last)
    return last is None, connection.scalar(failed) or 0, connection.scalar(seen) or 0


def _keep(
    connection: sa.Connection, learner: int, problem: str, state: dict[str, Any] | None, rating: Rating, day: date
) -> None:
    after, back = review(state, rating, day)
    if state is None:
        connection.execute(sa.insert(cards).values(learner=learner, problem=problem, state=after, due=back))
    else:
        mine = sa.and_(cards.c.learner == learner, cards.c.problem == problem)
        connection.execute(sa.update(cards).where(mine).values(state=after, due=back))
