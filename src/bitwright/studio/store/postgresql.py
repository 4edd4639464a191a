"""PostgreSQL: a server that several studios share."""

from __future__ import annotations

from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from bitwright.errors import BitwrightError, FileError, InputError, ResourceError
from bitwright.studio.store.database import ALONE, Database, misfit

_URL = "Give --database postgresql://USER:PASSWORD@HOST/NAME, or leave it out to use a file below --data"


def open_server(text: str, wait: float) -> Database:
    """The database at a URL. InputError where it is none, ResourceError where the driver is missing."""
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

    return Database(engine, where, partial(_explain, where=where, wait=wait))


def _explain(error: exc.DBAPIError, where: str, wait: float) -> BitwrightError | None:
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
        return FileError(f"not the studio's tables ({text})", where=where, fix=ALONE)
    if code.startswith(("22", "23")):
        return misfit(text, code == "23503", where)
    if code.startswith(("08", "57P")) or (not code and isinstance(error, exc.OperationalError)):
        fix = "See that the server runs and has this database and user, or correct --database"
        return ResourceError(f"no connection to PostgreSQL ({text})", where=where, fix=fix)
    return None
