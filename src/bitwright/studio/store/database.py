"""An open database: transactions whose errors a page can show. All that builds on it is the same on both engines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql, sqlite

from bitwright.errors import BitwrightError, FileError, InputError, ResourceError

ALONE = "Give the studio a database of its own"
Explain = Callable[[exc.DBAPIError], BitwrightError | None]
"""Makes a driver's error one of ours; None for an unexpected one."""


class Database:
    """An open database. `where` is the file, or the URL without its password. Any thread may call it.

    Every transaction has a connection of its own from a pool, so no two threads ever share one.
    """

    def __init__(self, engine: sa.Engine, where: str, explain: Explain, refusal: BitwrightError | None = None) -> None:
        """`explain` makes the driver's errors ours."""
        self.engine, self.where, self._explain = engine, where, explain
        self.refusal = refusal
        """Why nothing could be written when it was opened; None where it could."""
        self._file: tuple[int, int] | None = None

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of this machine."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction that writes: all of it is kept or, after an error, nothing.

        On SQLite it is the only writer from its first moment on. Raises ResourceError where the database is locked,
        full, read-only or not reachable, FileError where it is damaged, InputError where the data do not fit.
        """
        if self.refusal is not None:
            raise self.refusal
        with self._transaction({"bitwright_begin": "BEGIN IMMEDIATE"} if self.is_sqlite else {}) as connection:
            self.check_file()
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that reads one state of all tables and cannot write; it works while others write."""
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with self._transaction({"bitwright_begin": "BEGIN"} if self.is_sqlite else options) as connection:
            yield connection

    def insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """An insert of this engine's own, which can say what happens where a row is there already."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def insert_new(self, connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
        """Insert what is not there yet, as a part of the caller's transaction."""
        if rows:
            connection.execute(self.insert(table).on_conflict_do_nothing(), rows)

    def check_file(self) -> None:
        """A file that was removed can still be written, but nobody would ever read it again."""
        if not self.is_sqlite:
            return
        try:
            found = os.stat(self.where)
        except FileNotFoundError:
            found = None
        if found is None or self._file not in (None, (found.st_dev, found.st_ino)):
            fix = "Put it back where it was, and start the studio again"
            raise FileError("the database was removed or replaced while in use", where=self.where, fix=fix)
        self._file = (found.st_dev, found.st_ino)

    @contextmanager
    def _transaction(self, options: dict[str, Any]) -> Iterator[sa.Connection]:
        """The one place where the driver's errors become ours."""
        try:
            with self.engine.connect() as connection:
                connection.execution_options(**options)
                with connection.begin():
                    yield connection
        except exc.DBAPIError as error:
            found = self._explain(error)
            if found is None:
                raise
            raise found from error
        except exc.TimeoutError as error:
            what = "all connections are busy"
            raise ResourceError(what, where=self.where, fix="Try again in a moment") from error

    def close(self) -> None:
        """Close all connections that nobody uses."""
        self.engine.dispose()


def misfit(text: str, orphan: bool, where: str) -> InputError:
    """The data do not fit the tables; `orphan`: what they belong to is gone."""
    if orphan:
        return InputError("what this belongs to was removed meanwhile", where=where, fix="Reload the page")
    return InputError(f"does not fit what is there ({text})", where=where, fix="Reload the page and try again")
