"""Days on which somebody learned, and how many of them are in a row."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

import sqlalchemy as sa

from bitwright.studio.store.database import Database
from bitwright.studio.store.schema import days


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
