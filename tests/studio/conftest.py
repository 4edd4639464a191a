"""Both engines for every test that asks for a database: SQLite in a folder, and a real PostgreSQL server of our own."""

from __future__ import annotations

import asyncio
import inspect
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from bitwright.studio.store.database import Database
from bitwright.studio.store.learners import current
from bitwright.studio.store.open import open_database
from tests.studio.browser import chromium, compiled, studio, tab  # noqa: F401, fixtures of all tests in this folder

# The server ends, and its folder goes, when the tests' end of the pipe is closed, however the tests ended.
GUARD = """
"$1"/postgres -D "$2/data" -k "$2" -h 127.0.0.1 -p "$3" -c fsync=off -c full_page_writes=off -c shared_buffers=16MB \
    -c max_connections=60 -c jit=off -c log_min_messages=fatal >"$2/log" 2>&1 </dev/null &
read -r _
kill -QUIT $!
wait $!
rm -rf "$2"
"""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine in a thread of its own: the browser leaves a loop running in the main one."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    given = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(pyfuncitem.obj(**given))).result()
    return True


@dataclass(frozen=True)
class Place:
    """Where a test may open a database: what `open_database` takes."""

    url: str | None
    data: Path

    def open(self, wait: float = 5.0) -> Database:
        return open_database(self.url, self.data, wait)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL, without a database's name, of a server that lives as long as the tests; skips where none can be started."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    programs = found[-1].parent if found else None
    if programs is None and (initdb := shutil.which("initdb")):
        programs = Path(initdb).resolve().parent
    if programs is None or not (programs / "postgres").exists():
        pytest.skip("no PostgreSQL server on this machine: apt-get install postgresql")
    user = None
    if os.geteuid() == 0:  # the server refuses to run as root
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = next((name for name in ("postgres", "nobody") if name in names), None)
        if user is None:
            pytest.skip("no user that the server could run as: apt-get install postgresql")
    groups = {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="bitwright-pg-", dir="/tmp"))  # short: a socket's path has 107 bytes at most
    password = secrets.token_hex(8)
    (folder / "password").write_text(password)
    if user is not None:
        shutil.chown(folder, user)
        shutil.chown(folder / "password", user)
    made = subprocess.run(
        [programs / "initdb", "-D", folder / "data", "-U", "studio", "-E", "UTF8", "--locale=C", "--no-sync",
         "--auth=scram-sha-256", f"--pwfile={folder / 'password'}"],
        capture_output=True, text=True, cwd="/", **groups,
    )  # fmt: skip
    if made.returncode:
        shutil.rmtree(folder)
        pytest.skip(f"initdb failed: {made.stderr.strip()}")
    port = free_port()
    server = subprocess.Popen(
        ["sh", "-c", GUARD, "sh", programs, folder, str(port)],
        stdin=subprocess.PIPE, cwd="/", start_new_session=True, **groups,
    )  # fmt: skip
    url = f"postgresql://studio:{password}@127.0.0.1:{port}"
    try:
        until = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(f"{url}/postgres").close()
                break
            except psycopg.OperationalError as error:
                if time.monotonic() > until:
                    pytest.skip(f"the server did not start: {error}\n{(folder / 'log').read_text()}")
            time.sleep(0.05)
        yield url
    finally:
        server.communicate(timeout=30)


@pytest.fixture
def postgresql_url(postgresql: str) -> Iterator[str]:
    """URL of an empty PostgreSQL database."""
    name = f"t{secrets.token_hex(6)}"
    with psycopg.connect(f"{postgresql}/postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    yield f"{postgresql}/{name}"
    with psycopg.connect(f"{postgresql}/postgres", autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place for a database, on each engine."""
    url = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else None
    return Place(url, tmp_path / "data")


@pytest.fixture
def database(place: Place) -> Iterator[Database]:
    """A new database on each engine."""
    made = place.open()
    yield made
    made.close()


@pytest.fixture
def you(database: Database) -> int:
    """The number of the local profile."""
    return current(database).id


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
