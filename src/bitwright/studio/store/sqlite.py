"""SQLite: a file in the data folder, with a write-ahead log."""

from __future__ import annotations

import os
import sqlite3
import time
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import exc

from bitwright.errors import BitwrightError, FileError, ResourceError
from bitwright.studio.store.database import ALONE, Database, misfit
from bitwright.studio.store.versions import is_current

NAME = "studio.db"


def open_file(data: Path, wait: float) -> Database:
    """The file in the folder `data`, made where missing. ResourceError where the folder cannot be made."""
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"the folder cannot be made ({error.strerror})"
        raise ResourceError(what, where=str(data), fix="Choose another with --data") from error
    path = data / NAME
    engine = _engine(sa.URL.create("sqlite", database=str(path)), wait, writable=True)
    return Database(engine, str(path), partial(_explain, where=str(path), wait=wait))


def _engine(url: sa.URL, wait: float, writable: bool) -> sa.Engine:
    """Connections are cheap and each belongs to one transaction at a time, so there are as many as are asked for."""
    engine = sa.create_engine(url, connect_args={"timeout": wait}, pool_size=5, max_overflow=-1)

    @sa.event.listens_for(engine, "connect")
    def connect(connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None  # no transactions but those begun here
        if writable:
            _write_ahead(connection, wait)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # A reader that began to write would fail at once, without waiting, where somebody else had written meanwhile.
        statement = connection.get_execution_options().get("bitwright_begin", "BEGIN IMMEDIATE")
        connection.exec_driver_sql(f"PRAGMA query_only = {statement == 'BEGIN'}")
        connection.exec_driver_sql(statement)

    return engine


def _write_ahead(connection: sqlite3.Connection, wait: float) -> None:
    """Switch the file to a write-ahead log, once for good: readers and a writer then do not wait for each other.

    SQLite itself does not wait for a lock here: two processes that make the file at once would fail. A file system
    without shared memory keeps the older journal, where readers and a writer do wait for each other.
    """
    until = time.monotonic() + wait
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            return
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > until:
                raise
        time.sleep(0.02)


def open_readable(data: Path, wait: float, error: BitwrightError) -> Database:
    """The file for reading alone; `error`, why it cannot be written, where that is not possible either."""
    path = data / NAME
    log = path.with_name(NAME + "-wal")
    # Without its log the file does not change while nobody can write it; with one, the log's index must be there too.
    mode = "ro" if log.exists() and log.stat().st_size else "ro&immutable=1"
    url = sa.URL.create("sqlite", database=f"{path.absolute().as_uri()}?mode={mode}", query={"uri": "true"})
    database = Database(
        _engine(url, wait, writable=False), str(path), partial(_explain, where=str(path), wait=wait), refusal=error
    )
    try:
        with database.read() as connection:
            if is_current(connection, database.where):
                return database
    except BitwrightError:
        pass  # said better by `error`
    database.close()
    raise error


def _code(error: BaseException | None) -> str:
    """SQLite's name for what went wrong, as SQLITE_BUSY; empty where it has none."""
    return str(getattr(getattr(error, "orig", None), "sqlite_errorname", ""))


def is_unwritable(error: BitwrightError) -> bool:
    """Whether the file cannot be written, but perhaps read."""
    found = _code(error.__cause__)
    return found.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_FULL", "SQLITE_IOERR"))


def _explain(error: exc.DBAPIError, where: str, wait: float) -> BitwrightError | None:
    code, text = _code(error), str(error.orig)
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        what = f"another program kept it locked for {wait:g} s; nothing was changed"
        return ResourceError(what, where=where, fix="Try again, or stop the other program")
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        fix = "Put a backup in its place, or move it away to start with an empty one"
        return FileError(f"the database is damaged ({text})", where=where, fix=fix)
    if code == "SQLITE_FULL" or (code.startswith("SQLITE_IOERR") and _is_full(where)):
        return ResourceError("the disk is full; nothing was changed", where=where, fix="Free some space and try again")
    if code.startswith("SQLITE_IOERR"):
        fix = "Look at the disk: it may be full, limited or failing"
        return ResourceError(f"the disk refused ({text}); nothing was changed", where=where, fix=fix)
    if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        what = f"cannot be opened for writing ({text}); nothing was changed"
        return ResourceError(what, where=where, fix="Make the folder writable, or choose another with --data")
    if code.startswith("SQLITE_CONSTRAINT"):
        return misfit(text, code == "SQLITE_CONSTRAINT_FOREIGNKEY", where)
    if "no such table" in text or "no such column" in text or "already exists" in text:
        return FileError(f"not the studio's tables ({text})", where=where, fix=ALONE)
    return None


def _is_full(where: str) -> bool:
    try:
        found = os.statvfs(Path(where).parent)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < 100_000
