"""Which tables a database has, and how they become this program's."""

from __future__ import annotations

import threading
from pathlib import Path

import sqlalchemy as sa

from bitwright.errors import InputError
from bitwright.studio.store.database import Database

MIGRATIONS = Path(__file__).parent / "migrations"
_KEY = 0x62697477  # advisory lock of migrations on PostgreSQL
_MIGRATING = threading.Lock()  # Alembic's context is one for the process


def revisions() -> list[str]:
    """The schema versions that this program knows, oldest first."""
    return sorted(path.stem.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def bring_up_to_date(database: Database) -> None:
    """Bring the tables up to date; Alembic is imported only where there is something to do."""
    with database.read() as connection:
        database.check_file()
        if is_current(connection, database.where):
            return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with _MIGRATING, database.begin() as connection:
        if not database.is_sqlite:  # SQLite's writer is alone already
            connection.exec_driver_sql("SET LOCAL lock_timeout = '60s'")
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_KEY)))
        if not is_current(connection, database.where):  # another process may have been faster
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def is_current(connection: sa.Connection, where: str) -> bool:
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
