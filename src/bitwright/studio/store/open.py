"""Opening the studio's database: SQLite in the data folder unless a PostgreSQL URL is given."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from bitwright.errors import BitwrightError
from bitwright.studio.store.database import Database
from bitwright.studio.store.postgresql import open_server
from bitwright.studio.store.sqlite import is_unwritable, open_file, open_readable
from bitwright.studio.store.versions import bring_up_to_date

WAIT = 5.0
"""Seconds that a transaction waits for another program to let go of the database."""


def open_database(url: str | None, data: Path, wait: float = WAIT) -> Database:
    """The database at `url` (PostgreSQL), or where None the file `data/studio.db`, its tables as this program has them.

    It is made where missing and brought up to date where older; any number of processes may do so at once. A file
    that cannot be written (a full disk, a read-only folder) is opened for reading alone where it is up to date. `wait`
    is in seconds. Raises what `Database.begin` raises, and InputError for a bad URL or a newer program's database.
    """
    database = open_file(data, wait) if url is None else open_server(url, wait)
    with ExitStack() as stack:
        stack.callback(database.close)
        try:
            bring_up_to_date(database)
        except BitwrightError as error:
            if url is not None or not is_unwritable(error):
                raise
            return open_readable(data, wait, error)
        stack.pop_all()  # it stays open
    return database
