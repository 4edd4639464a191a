"""Where a learner stands with problems."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

import sqlalchemy as sa

from bitwright.studio.store.database import Database
from bitwright.studio.store.schema import cards, drafts, submissions

State = Literal["todo", "tried", "solved"]


@dataclass(frozen=True)
class Standing:
    """Where a learner stands with a problem: solved once accepted, tried after a draft or a counted submission."""

    state: State = "todo"
    tries: int = 0
    due: date | None = None
    """The day on which it comes back, see `reviews`."""


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
