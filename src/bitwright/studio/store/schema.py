"""The tables. Moments are stored as integer microseconds since 1970 UTC, days as ISO dates."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

STATES = ("waiting", "running", "stopping", "stopped", "done", "failed")
"""What a job can be, see `jobs`."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Moment(sa.types.TypeDecorator[datetime]):
    """A datetime with a time zone, exact to the microsecond; it comes back in UTC. ValueError for one without."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> int | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return None if value is None else (value - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class Day(sa.types.TypeDecorator[date]):
    """A date, as 2026-11-23."""

    impl = sa.String(10)
    cache_ok = True

    def process_bind_param(self, value: date | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else value.isoformat()

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> date | None:
        return None if value is None else date.fromisoformat(value)


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _learner(**options: Any) -> sa.Column[int]:
    key = sa.ForeignKey("learners.id", ondelete="CASCADE")
    return sa.Column("learner", sa.Integer, key, nullable=False, **options)


def _json(name: str, nullable: bool = True) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON(none_as_null=True), nullable=nullable)


# Autoincrement: the number of something that was removed is never given to something new.
learners = sa.Table(
    "learners",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("created", Moment, nullable=False),
    _json("settings"),
    sqlite_autoincrement=True,
)
lessons = sa.Table(
    "lessons",
    metadata,
    _learner(primary_key=True),
    sa.Column("slug", sa.Text, primary_key=True),
    sa.Column("section", sa.Text, nullable=False),
    sa.Column("started", Moment, nullable=False),
    sa.Column("visited", Moment, nullable=False),
    sa.Column("finished", Moment),
)
answers = sa.Table(
    "answers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    _learner(),
    sa.Column("place", sa.Text, nullable=False),
    sa.Column("question", sa.Text, nullable=False),
    sa.Column("moment", Moment, nullable=False),
    sa.Column("choice", sa.Integer, nullable=False),
    sa.Column("right", sa.Boolean, nullable=False),
    sa.UniqueConstraint("learner", "place", "question", "moment"),
    sqlite_autoincrement=True,
)
days = sa.Table("days", metadata, _learner(primary_key=True), sa.Column("day", Day, primary_key=True))
jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    _json("payload", nullable=False),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("owner", sa.Text),
    sa.Column("lease", Moment),
    sa.Column("due", Moment, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("limit", sa.Integer),
    _json("progress"),
    _json("result"),
    _json("error"),
    sa.Column("added", Moment, nullable=False),
    sa.Column("started", Moment),
    sa.Column("ended", Moment),
    sa.CheckConstraint(sa.text(f"state IN ({', '.join(map(repr, STATES))})"), name="state"),
    sa.Index(None, "state", "kind", "id"),
    sqlite_autoincrement=True,
)


# --- Practice: `problem` is a slug; a problem that is gone from the content keeps what was done of it.


def _problem(**options: Any) -> sa.Column[str]:
    return sa.Column("problem", sa.Text, nullable=False, **options)


drafts = sa.Table(
    "drafts",
    metadata,
    _learner(primary_key=True),
    _problem(primary_key=True),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("moment", Moment, nullable=False),
)
notes = sa.Table(
    "notes",
    metadata,
    _learner(primary_key=True),
    _problem(primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("moment", Moment, nullable=False),
)
own_tests = sa.Table(
    "own_tests",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    _learner(),
    _problem(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Index(None, "learner", "problem"),
    sqlite_autoincrement=True,
)
hints = sa.Table(
    "hints",
    metadata,
    _learner(primary_key=True),
    _problem(primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("moment", Moment, nullable=False),
)
submissions = sa.Table(
    "submissions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    _learner(),
    _problem(),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("moment", Moment, nullable=False),
    sa.Column("job", sa.Integer),
    sa.Column("verdict", sa.String(3)),
    _json("result"),
    sa.Column("cpu", sa.Float),
    sa.Column("memory", sa.BigInteger),
    sa.Column("counted", sa.Boolean, nullable=False),
    _json("rank"),
    sa.Index(None, "learner", "problem"),
    sa.Index(None, "problem", "verdict"),
    sqlite_autoincrement=True,
)
"""`verdict` is NULL while it waits for its `job`; `counted`: an attempt, which all but IE are once judged."""
cards = sa.Table(
    "cards",
    metadata,
    _learner(primary_key=True),
    _problem(primary_key=True),
    _json("state", nullable=False),
    sa.Column("due", Day, nullable=False),
)
