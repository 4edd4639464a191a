"""Long work that outlives a page: a table of jobs that processes lease, one owner at a time, on both engines.

                  claim             finish
      waiting ------------> running -------> done
       ^  ^  lease ran out   |  |   fail
       |  '------------------'  |----------> failed
       |     fail, not final    | stop
       | resume                 v   stopped
       '---- stopped, failed   stopping ---> stopped

Whoever claims a job holds it for some seconds and renews that lease while it works. A job whose owner died is claimed
anew when its lease has run out; the old owner, should it still live, can then neither report nor finish, so that
nothing is done twice. `owner` names one process, and is never used by another (say, host, pid and a random part).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from bitwright.errors import InputError
from bitwright.studio.store.database import Database
from bitwright.studio.store.schema import jobs

State = Literal["waiting", "running", "stopping", "stopped", "done", "failed"]


@dataclass(frozen=True)
class Job:
    """A job as it was when it was read. Moments are in UTC; `payload`, `progress`, `result`, `error` are plain JSON."""

    id: int
    kind: str
    payload: dict[str, Any]
    state: State
    owner: str | None
    """Who holds it, or held it last."""
    lease: datetime | None
    """Until when it is its owner's."""
    due: datetime
    """Before this moment nobody may claim it."""
    attempts: int
    """How often it was claimed since it was added or resumed."""
    limit: int | None
    """How often it may be; None: as often as it takes."""
    progress: Any
    result: Any
    error: Any
    added: datetime
    started: datetime | None
    """When it was claimed last."""
    ended: datetime | None


_COLUMNS = [jobs.c[part.name] for part in fields(Job)]


def add(db: Database, kind: str, payload: Mapping[str, Any], *, limit: int | None = None, delay: float = 0.0) -> int:
    """A new job, waiting; its number. It may be claimed after `delay` seconds, and `limit` times at most: one whose
    owner died that often has failed. InputError where `payload` is not plain JSON."""
    with db.begin() as connection:
        return add_within(db, connection, kind, payload, limit=limit, delay=delay)


def add_within(
    db: Database, connection: sa.Connection, kind: str, payload: Mapping[str, Any], *, limit: int | None = None,
    delay: float = 0.0, owner: str | None = None, seconds: float = 0.0,
) -> int:  # fmt: skip
    """`add` as a part of the caller's transaction. With `owner` the job is claimed at once, for `seconds`."""
    now = _now(db, connection)
    row = {"kind": kind, "payload": _plain("payload", dict(payload)), "state": "waiting", "attempts": 0, "limit": limit}
    if owner is not None:
        lease = now + timedelta(seconds=seconds)
        row |= {"state": "running", "attempts": 1, "owner": owner, "lease": lease, "started": now}
    made = sa.insert(jobs).values(**row, added=now, due=now + timedelta(seconds=delay)).returning(jobs.c.id)
    return int(connection.execute(made).scalar_one())


def claim(db: Database, kinds: Collection[str], owner: str, seconds: float) -> Job | None:
    """The oldest job of `kinds` that nobody works on, now `owner`'s for `seconds`; None where there is none.

    Asking costs no more than reading where there is nothing to do.
    """
    with db.read() as connection:
        now = _now(db, connection)
        if connection.scalar(sa.select(jobs.c.id).where(sa.or_(_free(kinds, now), _left(now))).limit(1)) is None:
            return None
    with db.begin() as connection:
        now = _now(db, connection)
        _settle(connection, now)
        oldest = sa.select(jobs.c.id).where(_free(kinds, now)).order_by(jobs.c.id).limit(1)
        id = connection.scalar(oldest.with_for_update(skip_locked=True))  # SQLite's writer is alone already
        if id is None:
            return None
        lease = now + timedelta(seconds=seconds)
        values = {"state": "running", "owner": owner, "lease": lease, "started": now, "ended": None}
        taken = sa.update(jobs).where(jobs.c.id == id).values(**values, attempts=jobs.c.attempts + 1)
        return _job(connection.execute(taken.returning(*_COLUMNS)).one())


def renew(db: Database, owner: str, seconds: float) -> dict[int, State]:
    """Hold all that `owner` holds for `seconds` from now. The states of these jobs by number: "running", or "stopping"
    where the owner is asked to stop."""
    with db.begin() as connection:
        lease = _now(db, connection) + timedelta(seconds=seconds)
        mine = sa.and_(jobs.c.owner == owner, jobs.c.state.in_(("running", "stopping")))
        held = sa.update(jobs).where(mine).values(lease=lease).returning(jobs.c.id, jobs.c.state)
        return {row.id: row.state for row in connection.execute(held)}


def report(db: Database, id: int, owner: str, progress: Any) -> bool:
    """Keep how far the owner is, as plain JSON; False where the job is no longer the owner's."""
    kept = sa.update(jobs).where(_held(id, owner)).values(progress=_plain("progress", progress))
    with db.begin() as connection:
        return connection.execute(kept).rowcount == 1


def finish(db: Database, id: int, owner: str, result: Any = None) -> bool:
    """The job is done; False, and nothing changed, where it is no longer the owner's."""
    with db.begin() as connection:
        return finish_within(db, connection, id, owner, result)


def finish_within(db: Database, connection: sa.Connection, id: int, owner: str, result: Any = None) -> bool:
    """`finish` as a part of the caller's transaction, so that what came of the job is kept with its end, or not."""
    return _end(db, connection, _held(id, owner), state="done", result=_plain("result", result), error=None)


def fail(db: Database, id: int, owner: str, error: Any, final: bool = True, delay: float = 0.0) -> bool:
    """The job failed with `error` (plain JSON): for good, or else it may be claimed again after `delay` seconds, unless
    its attempts are spent or it was asked to stop. False where the job is no longer the owner's."""
    error = _plain("error", error)
    with db.begin() as connection:
        now = _now(db, connection)
        spent = jobs.c.attempts >= jobs.c.limit  # NULL, not true, where there is no limit
        states = ((sa.literal(final), "failed"), (jobs.c.state == "stopping", "stopped"), (spent, "failed"))
        state = sa.case(*states, else_="waiting")
        ended = sa.case((state == "waiting", sa.null()), else_=sa.literal(now, jobs.c.ended.type))
        values = {"state": state, "error": error, "lease": None, "due": now + timedelta(seconds=delay), "ended": ended}
        return connection.execute(sa.update(jobs).where(_held(id, owner)).values(**values)).rowcount == 1


def release(db: Database, id: int, owner: str) -> bool:
    """Give a job back unfinished (the owner goes home), as if it had not been claimed; False where it is not theirs."""
    with db.begin() as connection:
        asked = jobs.c.state == "stopping"
        ended = sa.case((asked, sa.literal(_now(db, connection), jobs.c.ended.type)), else_=sa.null())
        values = {"state": sa.case((asked, "stopped"), else_="waiting"), "lease": None, "ended": ended}
        back = sa.update(jobs).where(_held(id, owner)).values(**values, attempts=jobs.c.attempts - 1)
        return connection.execute(back).rowcount == 1


def stop(db: Database, id: int) -> bool:
    """Ask a job to stop: a waiting one is stopped at once, a running one when its owner has seen it (`renew` tells) or
    its lease has run out. False where it had ended already, or is not there."""
    with db.begin() as connection:
        now = _now(db, connection)
        idle = sa.or_(jobs.c.state == "waiting", jobs.c.lease < now)
        state = sa.case((idle, "stopped"), else_="stopping")
        ended = sa.case((idle, sa.literal(now, jobs.c.ended.type)), else_=sa.null())
        open_ = sa.and_(_is(id), jobs.c.state.in_(("waiting", "running", "stopping")))
        return connection.execute(sa.update(jobs).where(open_).values(state=state, ended=ended)).rowcount == 1


def stopped(db: Database, id: int, owner: str) -> bool:
    """The owner has stopped; False where the job is no longer the owner's."""
    with db.begin() as connection:
        return _end(db, connection, _held(id, owner), state="stopped")


def resume(db: Database, id: int) -> bool:
    """Let a stopped or failed job wait again, with its progress and no attempts; False where it is in another state."""
    ended = sa.and_(_is(id), jobs.c.state.in_(("stopped", "failed")))
    with db.begin() as connection:
        values = {"state": "waiting", "due": _now(db, connection), "attempts": 0, "error": None, "ended": None}
        return connection.execute(sa.update(jobs).where(ended).values(**values)).rowcount == 1


def remove(db: Database, id: int) -> bool:
    """Forget a job that waits or has ended; False where it runs or is not there."""
    idle = sa.and_(_is(id), jobs.c.state.not_in(("running", "stopping")))
    with db.begin() as connection:
        return connection.execute(sa.delete(jobs).where(idle)).rowcount == 1


def get(db: Database, id: int) -> Job | None:
    """A job, or None where there is none of that number."""
    with db.read() as connection:
        row = connection.execute(sa.select(*_COLUMNS).where(_is(id))).first()
    return None if row is None else _job(row)


def list(db: Database, kind: str | None = None, *, states: Collection[str] = (), limit: int = 1000) -> Sequence[Job]:
    """Jobs of a kind (or all), in `states` (or any), the newest first, `limit` at most."""
    wanted = sa.select(*_COLUMNS).order_by(jobs.c.id.desc()).limit(limit)
    if kind is not None:
        wanted = wanted.where(jobs.c.kind == kind)
    if states:
        wanted = wanted.where(jobs.c.state.in_(states))
    with db.read() as connection:
        return tuple(_job(row) for row in connection.execute(wanted))


def _job(row: sa.Row[Any]) -> Job:
    return Job(**row._mapping)


def _is(id: int) -> sa.ColumnElement[bool]:
    """The job of a number; none for a number that no job can have, which PostgreSQL would not even compare."""
    return jobs.c.id == id if 0 < id < 2**31 else sa.false()


def _held(id: int, owner: str) -> sa.ColumnElement[bool]:
    return sa.and_(_is(id), jobs.c.owner == owner, jobs.c.state.in_(("running", "stopping")))


def _free(kinds: Collection[str], now: datetime) -> sa.ColumnElement[bool]:
    """What can be claimed: jobs that wait, and those whose owner let the lease run out."""
    waiting = sa.and_(jobs.c.state == "waiting", jobs.c.due <= now)
    dead = sa.and_(jobs.c.state == "running", jobs.c.lease < now)
    return sa.and_(jobs.c.kind.in_(kinds), sa.or_(waiting, dead))


def _left(now: datetime) -> sa.ColumnElement[bool]:
    """Jobs without an owner that shall not be claimed again: asked to stop, or out of attempts."""
    spent = sa.and_(jobs.c.state == "running", jobs.c.attempts >= jobs.c.limit)
    return sa.and_(jobs.c.lease < now, sa.or_(jobs.c.state == "stopping", spent))


def _settle(connection: sa.Connection, now: datetime) -> None:
    """End the jobs of dead owners that shall not be claimed again."""
    state = sa.case((jobs.c.state == "stopping", "stopped"), else_="failed")
    died = {"text": "what worked on it died each time", "fix": "Look at its memory, then let it go on"}
    error = sa.case((jobs.c.state == "stopping", jobs.c.error), else_=sa.literal(died, jobs.c.error.type))
    left = sa.select(jobs.c.id).where(_left(now)).with_for_update(skip_locked=True)
    ended = sa.update(jobs).where(jobs.c.id.in_(left)).values(state=state, error=error, lease=None, ended=now)
    connection.execute(ended)


def _end(db: Database, connection: sa.Connection, which: sa.ColumnElement[bool], **values: Any) -> bool:
    values |= {"lease": None, "ended": _now(db, connection)}
    return connection.execute(sa.update(jobs).where(which).values(**values)).rowcount == 1


def _now(db: Database, connection: sa.Connection) -> datetime:
    """One clock for all owners: the server's, or this machine's for its file."""
    if db.is_sqlite:
        return datetime.now(UTC)
    found: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return found


def _plain(where: str, value: Any) -> Any:
    """`value`, which is plain JSON; InputError where it is not, NaN and infinity included."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"not plain JSON ({error})", where=where, fix="Store text, numbers, lists and objects"
        ) from error
