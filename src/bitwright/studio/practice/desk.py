"""What lies on a learner's desk for a problem: the draft, the note, and tests of their own.

Plain functions over a `Database`; each is one transaction and raises what `Database.begin` or `read` raises, and
InputError for text that is too long or cannot be kept. `learner` is a profile's number, `problem` a slug, `when` a
moment with the time zone that the learner lives in.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from bitwright.errors import InputError
from bitwright.studio.practice.text import code_of, text_of
from bitwright.studio.store.database import Database
from bitwright.studio.store.learners import lock
from bitwright.studio.store.schema import drafts, notes, own_tests

NOTE = 100_000
"""Characters that a note may have."""
OWN = 20_000
"""Characters that a test of one's own may have."""
MOST_OWN = 50
"""Tests of one's own that a problem may have."""


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


def _at(table: sa.Table, learner: int, problem: str) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.learner == learner, table.c.problem == problem)


def _put(db: Database, table: sa.Table, learner: int, problem: str, values: dict[str, Any]) -> None:
    """Insert a row, or give the one that is there new values."""
    row = db.insert(table).values(learner=learner, problem=problem, **values)
    with db.begin() as connection:
        connection.execute(row.on_conflict_do_update(index_elements=["learner", "problem"], set_=values))
