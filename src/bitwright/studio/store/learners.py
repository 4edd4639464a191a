"""Who learns: the profiles of this studio."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from bitwright.errors import InputError, ResourceError
from bitwright.studio.store.database import Database
from bitwright.studio.store.schema import learners
from bitwright.studio.store.text import is_clean

YOU = "You"
"""Name of the profile that is made on first use."""
LONGEST = 60
"""Characters that a profile's name may have."""
GUEST = 0
"""Number of the learner while nobody has a profile and none can be made: pages can be read, nothing is kept."""


@dataclass(frozen=True)
class Learner:
    """A profile."""

    id: int
    name: str
    created: datetime


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
            db.insert_new(connection, learners, [{"name": YOU, "created": datetime.now(UTC)}])
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
        made = (
            db.insert(learners)
            .on_conflict_do_nothing()
            .values(name=name, created=datetime.now(UTC))
            .returning(learners)
        )
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
        return _learner(row_of(connection, learner))


def remove(db: Database, learner: int) -> None:
    """Remove a profile with all that is remembered of it; nothing happens where there is none."""
    with db.begin() as connection:
        connection.execute(sa.delete(learners).where(learners.c.id == learner))


def _learner(row: sa.Row[Any]) -> Learner:
    return Learner(row.id, row.name, row.created)


def lock(connection: sa.Connection, learner: int) -> None:
    """From here on one transaction at a time per learner; InputError where there is no such profile."""
    found = connection.scalar(sa.select(learners.c.id).where(learners.c.id == learner).with_for_update())
    if found is None:
        raise InputError("there is no such profile any more", where=f"profile {learner}", fix="Choose one in Settings")


def row_of(connection: sa.Connection, learner: int) -> sa.Row[Any]:
    """The row of a profile. InputError where there is none, ResourceError for a guest."""
    row = connection.execute(sa.select(learners).where(learners.c.id == learner)).first()
    if row is None and learner == GUEST:
        fix = "Free some space on the disk, then reload the page"
        raise ResourceError("no profile could be made, so that nothing is kept", where="profile", fix=fix)
    if row is None:
        raise InputError("there is no such profile any more", where=f"profile {learner}", fix="Choose one in Settings")
    return row


def _name(name: str) -> str:
    name = " ".join(name.split())
    if not 0 < len(name) <= LONGEST or not is_clean(name):
        what = f"a name has 1 to {LONGEST} characters, none of them a control character"
        raise InputError(what, where="name", fix="Choose another name")
    return name


def _taken(name: str) -> InputError:
    return InputError(f"there is a profile {name!r} already", where="name", fix="Choose another name")
