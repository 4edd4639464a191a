"""The studio's database: its tables, opening it, and transactions whose errors a page can show.

SQLite in the data folder unless a PostgreSQL URL is given; all that builds on it behaves the same on both. Moments are
stored as integer microseconds since 1970 UTC, days as ISO dates.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import sqlalchemy as sa
from sqlalchemy import exc

from bitwright.errors import BitwrightError, FileError, InputError, ResourceError

NAME = "studio.db"
WAIT = 5.0
"""Seconds that a transaction waits for another program to let go of the database."""
MIGRATIONS = Path(__file__).parent / "migrations"
STATES = ("waiting", "running", "stopping", "stopped", "done", "failed")
"""What a job can be, see `jobs`."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEY = 0x62697477  # advisory lock of migrations on PostgreSQL
_MIGRATING = threading.Lock()  # Alembic's context is one for the process
_ALONE = "Give the studio a database of its own"
_URL = "Give --database postgresql://USER:PASSWORD@HOST/NAME, or leave it out to use a file below --data"


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


class Database:
    """An open database. `where` is the file, or the URL without its password. Any thread may call it.

    Every transaction has a connection of its own from a pool, so no two threads ever share one.
    """

    def __init__(self, engine: sa.Engine, where: str, wait: float, refusal: BitwrightError | None = None) -> None:
        self.engine, self.where, self.wait = engine, where, wait
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
            self._check_file()
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that reads one state of all tables and cannot write; it works while others write."""
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with self._transaction({"bitwright_begin": "BEGIN"} if self.is_sqlite else options) as connection:
            yield connection

    def _check_file(self) -> None:
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
            self._raise(error)
        except exc.TimeoutError as error:
            what = "all connections are busy"
            raise ResourceError(what, where=self.where, fix="Try again in a moment") from error

    def _raise(self, error: exc.DBAPIError) -> NoReturn:
        found = (_sqlite_error if self.is_sqlite else _postgresql_error)(error, self.where, self.wait)
        if found is None:
            raise error
        raise found from error

    def close(self) -> None:
        """Close all connections that nobody uses."""
        self.engine.dispose()


def open_database(url: str | None, data: Path, wait: float = WAIT) -> Database:
    """The database at `url` (PostgreSQL), or where None the file `data/studio.db`, its tables as this program has them.

    It is made where missing and brought up to date where older; any number of processes may do so at once. A file
    that cannot be written (a full disk, a read-only folder) is opened for reading alone where it is up to date. `wait`
    is in seconds. Raises what `Database.begin` raises, and InputError for a bad URL or a newer program's database.
    """
    database = _sqlite(data, wait) if url is None else _postgresql(url, wait)
    with ExitStack() as stack:
        stack.callback(database.close)
        try:
            _ready(database)
        except BitwrightError as error:
            if url is not None or not _unwritable(error):
                raise
            return _readable(data, wait, error)
        stack.pop_all()  # it stays open
    return database


def revisions() -> list[str]:
    """The schema versions that this program knows, oldest first."""
    return sorted(path.stem.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def _ready(database: Database) -> None:
    """Bring the tables up to date; Alembic is imported only where there is something to do."""
    with database.read() as connection:
        database._check_file()
        if _is_current(connection, database.where):
            return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with _MIGRATING, database.begin() as connection:
        if not database.is_sqlite:  # SQLite's writer is alone already
            connection.exec_driver_sql("SET LOCAL lock_timeout = '60s'")
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_KEY)))
        if not _is_current(connection, database.where):  # another process may have been faster
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _is_current(connection: sa.Connection, where: str) -> bool:
    """Whether the tables are this program's; InputError where they are of a newer one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return False
    known = revisions()
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
    unknown = set(found) - set(known)
    if unknown:
        raise InputError(
            f"was written by a newer Bitwright (schema {max(unknown)}, this one knows up to {known[-1]})",
            where=where,
            fix="Update Bitwright (pip install -U bitwright), or choose another --data or --database",
        )
    return list(found) == known[-1:]


# --- SQLite


def _sqlite(data: Path, wait: float) -> Database:
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"the folder cannot be made ({error.strerror})"
        raise ResourceError(what, where=str(data), fix="Choose another with --data") from error
    path = data / NAME
    engine = _sqlite_engine(sa.URL.create("sqlite", database=str(path)), wait, writable=True)
    return Database(engine, str(path), wait)


def _sqlite_engine(url: sa.URL, wait: float, writable: bool) -> sa.Engine:
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


def _readable(data: Path, wait: float, error: BitwrightError) -> Database:
    """The file for reading alone; `error`, why it cannot be written, where that is not possible either."""
    path = data / NAME
    log = path.with_name(NAME + "-wal")
    # Without its log the file does not change while nobody can write it; with one, the log's index must be there too.
    mode = "ro" if log.exists() and log.stat().st_size else "ro&immutable=1"
    url = sa.URL.create("sqlite", database=f"{path.absolute().as_uri()}?mode={mode}", query={"uri": "true"})
    database = Database(_sqlite_engine(url, wait, writable=False), str(path), wait, refusal=error)
    try:
        with database.read() as connection:
            if _is_current(connection, database.where):
                return database
    except BitwrightError:
        pass  # said better by `error`
    database.close()
    raise error


def _code(error: BaseException | None) -> str:
    """SQLite's name for what went wrong, as SQLITE_BUSY; empty where it has none."""
    return str(getattr(getattr(error, "orig", None), "sqlite_errorname", ""))


def _unwritable(error: BitwrightError) -> bool:
    found = _code(error.__cause__)
    return found.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_FULL", "SQLITE_IOERR"))


def _sqlite_error(error: exc.DBAPIError, where: str, wait: float) -> BitwrightError | None:
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
        return _misfit(text, code == "SQLITE_CONSTRAINT_FOREIGNKEY", where)
    if "no such table" in text or "no such column" in text or "already exists" in text:
        return FileError(f"not the studio's tables ({text})", where=where, fix=_ALONE)
    return None


def _is_full(where: str) -> bool:
    try:
        found = os.statvfs(Path(where).parent)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < 100_000


# --- PostgreSQL


def _postgresql(text: str, wait: float) -> Database:
    try:
        url = sa.make_url(text)
        usable = url.drivername in ("postgresql", "postgres", "postgresql+psycopg") and bool(url.database)
    except (exc.ArgumentError, ValueError) as error:
        raise InputError("not the URL of a database", where="--database", fix=_URL) from error
    if not usable:
        # Only the scheme is repeated: the rest may be a password.
        what = f"{url.drivername}:// is not a kind of database that the studio can use"
        raise InputError(what if url.database else "the URL names no database", where="--database", fix=_URL)
    url = url.set(drivername="postgresql+psycopg")
    where = url.set(drivername="postgresql").render_as_string(hide_password=True)
    try:
        engine = sa.create_engine(
            url, connect_args={"connect_timeout": max(2, round(wait))}, pool_pre_ping=True, pool_timeout=wait
        )
    except ImportError as error:
        fix = "Run pip install 'bitwright[postgres]', or leave --database out"
        raise ResourceError(f"PostgreSQL needs psycopg ({error})", where="--database", fix=fix) from error

    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, record: object) -> None:
        connection.autocommit = True
        connection.execute(f"SET lock_timeout = {round(wait * 1000)}")
        connection.autocommit = False

    return Database(engine, where, wait)


def _postgresql_error(error: exc.DBAPIError, where: str, wait: float) -> BitwrightError | None:
    code = str(getattr(error.orig, "sqlstate", None) or "")
    text = " ".join(str(error.orig).split())
    if code in ("55P03", "40P01", "40001"):
        what = f"another program kept it locked for {wait:g} s; nothing was changed"
        return ResourceError(what, where=where, fix="Try again, or stop the other program")
    if code == "53100":
        fix = "Free some space there and try again"
        return ResourceError("the server's disk is full; nothing was changed", where=where, fix=fix)
    if code in ("25006", "42501", "53300"):
        fix = "Ask whoever runs it for the right to write, or try again later"
        return ResourceError(f"the server refused ({text})", where=where, fix=fix)
    if code in ("XX001", "XX002", "58030"):
        return FileError(f"the database is damaged ({text})", where=where, fix="Put a backup in its place")
    if code in ("42P01", "42703", "42P07"):
        return FileError(f"not the studio's tables ({text})", where=where, fix=_ALONE)
    if code.startswith(("22", "23")):
        return _misfit(text, code == "23503", where)
    if code.startswith(("08", "57P")) or (not code and isinstance(error, exc.OperationalError)):
        fix = "See that the server runs and has this database and user, or correct --database"
        return ResourceError(f"no connection to PostgreSQL ({text})", where=where, fix=fix)
    return None


def _misfit(text: str, orphan: bool, where: str) -> InputError:
    if orphan:
        return InputError("what this belongs to was removed meanwhile", where=where, fix="Reload the page")
    return InputError(f"does not fit what is there ({text})", where=where, fix="Reload the page and try again")
