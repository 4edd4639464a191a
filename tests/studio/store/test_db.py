"""The studio's database: same tables by migration as by code, safe to open at once, errors that say what to do."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from bitwright.errors import BitwrightError, FileError, InputError, ResourceError
from bitwright.studio.learn import record
from bitwright.studio.store import days, jobs, learners, schema, settings, sqlite, versions
from bitwright.studio.store.database import Database
from bitwright.studio.store.open import open_database
from bitwright.studio.store.schema import metadata
from tests.studio.conftest import Place, free_port

NOW = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
PERSON = 65534  # a user without rights of their own


def shape(connection: sa.Connection) -> dict[str, Any]:
    """All that can be asked of a database's tables."""
    found = sa.inspect(connection)
    names = sorted(set(found.get_table_names()) - {"alembic_version"})
    return {
        name: (
            [(c["name"], str(c["type"]), c["nullable"], str(c.get("default"))) for c in found.get_columns(name)],
            found.get_pk_constraint(name),
            found.get_foreign_keys(name),
            sorted(found.get_unique_constraints(name), key=str),
            found.get_check_constraints(name),
            sorted(found.get_indexes(name), key=str),
        )
        for name in names
    }


def programs(place: Place, code: str, count: int) -> list[str]:
    """What `count` processes print that start `code` at the same moment; `url` and `data` are given to it."""
    head = (
        "import sys, warnings\nfrom pathlib import Path\nfrom bitwright.studio.store import jobs, learners\n"
        "from bitwright.studio.store.open import open_database\n"
        f"warnings.simplefilter('error')\nurl, data = {place.url!r}, Path({str(place.data)!r})\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", head + textwrap.dedent(code)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for _ in range(count)
    ]  # fmt: skip
    for process in started:
        assert process.stdout and process.stdout.readline() == "ready\n", process.communicate()
    for process in started:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate(timeout=120)[0].strip() for process in started]


# --- Tables


def test_migrations_make_exactly_the_tables_of_the_code(place: Place, database: Database) -> None:
    with database.read() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        migrated = shape(connection)
    practice = {"drafts", "notes", "own_tests", "hints", "submissions", "cards"}
    assert set(migrated) == {"learners", "lessons", "answers", "days", "jobs"} | practice
    with database.begin() as connection:
        connection.exec_driver_sql("DROP TABLE alembic_version")
        metadata.drop_all(connection)
        metadata.create_all(connection)
        assert shape(connection) == migrated


def test_a_missing_migration_would_be_seen(database: Database) -> None:
    with database.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE lessons ADD COLUMN extra TEXT")
        connection.exec_driver_sql("DROP INDEX ix_jobs_state_kind_id")
    with database.read() as connection:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
    assert {difference[0] for difference in found} == {"remove_column", "add_index"}


def test_versions_are_numbered_without_a_gap() -> None:
    found = versions.revisions()
    assert found == [f"{number + 1:04}" for number in range(len(found))] and found


def test_opening_again_changes_nothing(place: Place, database: Database) -> None:
    you = learners.current(database)
    again = place.open()
    assert learners.everyone(again) == [you]
    again.close()


def test_opening_again_does_not_import_alembic(place: Place, database: Database) -> None:
    code = """
        import time
        start = time.perf_counter()
        open_database(url, data).close()
        print('alembic' in sys.modules, time.perf_counter() - start)
    """
    imported, seconds = programs(place, code, 1)[0].split()
    assert imported == "False"
    assert float(seconds) < 1, "tens of milliseconds on a machine that does nothing else"


@pytest.mark.slow
def test_many_processes_may_make_it_at_once(place: Place) -> None:
    code = """
        made = open_database(url, data)
        print(learners.current(made).name, len(learners.everyone(made)))
        made.close()
    """
    assert programs(place, code, 4) == ["You 1"] * 4


def test_threads_may_make_it_at_once(place: Place) -> None:
    with ThreadPoolExecutor(6) as pool:
        opened = [future.result() for future in [pool.submit(place.open) for _ in range(6)]]
    assert len({learners.current(one).id for one in opened}) == 1
    for one in opened:
        one.close()


def test_threads_may_make_different_ones_at_once(tmp_path: Path) -> None:
    for turn in range(5):
        with ThreadPoolExecutor(6) as pool:
            futures = [pool.submit(open_database, None, tmp_path / f"{turn}-{number}") for number in range(6)]
            for future in futures:
                made = future.result()
                assert learners.current(made).name == "You"
                made.close()


def test_a_migration_that_fails_leaves_nothing_behind(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        folder = place.data.parent / "migrations"
        shutil.copytree(versions.MIGRATIONS, folder)
        last = versions.revisions()[-1]
        next = f"{int(last) + 1:04}"
        text = f"revision = '{next}'\ndown_revision = '{last}'\ndef upgrade():\n    raise OSError('stopped half-way')\n"
        (folder / "versions" / f"{next}_breaks.py").write_text(text)
        broken.setattr(versions, "MIGRATIONS", folder)
        with pytest.raises(OSError, match="half-way"):
            place.open()
    made = place.open()
    assert learners.current(made).name == "You"
    made.close()


def test_a_newer_database_is_refused_and_not_touched(place: Place, database: Database) -> None:
    learners.add(database, "Ada")
    with database.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(InputError, match=r"newer Bitwright \(schema 9999, .*pip install -U bitwright"):
        place.open()
    with database.begin() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all() == ["9999"]
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{versions.revisions()[-1]}'")
    again = place.open()
    assert [one.name for one in learners.everyone(again)] == ["Ada"]
    again.close()


def test_tables_of_another_program_are_not_taken(place: Place) -> None:
    if place.url is None:
        place.data.mkdir()
        with sqlite3.connect(place.data / "studio.db") as raw:
            raw.execute("CREATE TABLE jobs (theirs TEXT)")
        raw.close()
    else:
        engine = sa.create_engine(place.url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE jobs (theirs TEXT)")
        engine.dispose()
    with pytest.raises(FileError, match=r"not the studio's tables .*jobs.* already exists.*a database of its own"):
        place.open()


def test_sqlite_is_set_up_for_many_readers_and_a_writer(tmp_path: Path) -> None:
    made = open_database(None, tmp_path / "new" / "data")
    with made.read() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "busy_timeout", "foreign_keys", "synchronous")
        }
    made.close()
    assert found == {"journal_mode": "wal", "busy_timeout": 5000, "foreign_keys": 1, "synchronous": 1}


def test_odd_folder_names_are_taken_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "100 % ü?mode=memory#x"
    made = open_database(None, folder)
    learners.add(made, "Ada")
    made.close()
    again = open_database(None, folder)
    assert (folder / "studio.db").exists() and [one.name for one in learners.everyone(again)] == ["Ada"]
    again.close()


# --- Transactions


def test_a_transaction_is_kept_whole_or_not_at_all(database: Database) -> None:
    def half() -> None:
        with database.begin() as connection:
            connection.execute(sa.insert(schema.learners).values(name="Ada", created=NOW))
            raise KeyError

    with pytest.raises(KeyError):
        half()
    assert learners.everyone(database) == []


def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(ResourceError), database.read() as connection:
        connection.execute(sa.insert(schema.learners).values(name="Ada", created=NOW))
    assert learners.add(database, "Ada").name == "Ada", "and the connection can write again afterwards"


def test_a_reader_sees_one_state_while_others_write(database: Database) -> None:
    learners.add(database, "Ada")
    count = sa.select(sa.func.count()).select_from(schema.learners)
    with database.read() as connection:
        before = connection.scalar(count)
        thread = threading.Thread(target=learners.add, args=(database, "Bob"))
        thread.start()
        thread.join(10)
        assert not thread.is_alive() and connection.scalar(count) == before == 1
    assert len(learners.everyone(database)) == 2


def test_threads_share_it_without_losing_anything(database: Database) -> None:
    you = learners.current(database).id

    def work(number: int) -> None:
        for turn in range(15):
            when = NOW + timedelta(seconds=number * 100 + turn)
            record.answer(database, you, "lesson:a", f"q{number}-{turn}", 1, turn % 2 == 0, when)
            record.progress(database, you)

    with ThreadPoolExecutor(12) as pool:
        for future in [pool.submit(work, number) for number in range(12)]:
            future.result()
    found = record.progress(database, you).lesson("a")
    assert (found.answered, found.right) == (180, 96)


def test_moments_come_back_exactly_and_in_utc(database: Database) -> None:
    when = datetime(2026, 11, 23, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=-9, minutes=-30)))
    with database.begin() as connection:
        connection.execute(sa.insert(schema.learners).values(name="Ada", created=when))
    found = learners.everyone(database)[0].created
    assert found == when and found.utcoffset() == timedelta(0)
    with pytest.raises(sa.exc.StatementError, match="no time zone"), database.begin() as connection:
        connection.execute(sa.insert(schema.learners).values(name="Bob", created=datetime(2026, 11, 23)))


def test_what_belongs_to_something_removed_is_refused(database: Database) -> None:
    with pytest.raises(InputError, match="removed meanwhile"), database.begin() as connection:
        connection.execute(sa.insert(schema.days).values(learner=77, day=NOW.date()))


def test_our_own_mistakes_are_not_dressed_up(database: Database) -> None:
    with pytest.raises(sa.exc.DBAPIError), database.read() as connection:
        connection.exec_driver_sql("SELEC 1")


def test_missing_tables_say_so(database: Database) -> None:
    with database.begin() as connection:
        connection.exec_driver_sql("DROP TABLE jobs")
    with pytest.raises(FileError, match="not the studio's tables"):
        jobs.get(database, 1)


# --- Locked


def test_a_locked_database_can_be_read_and_says_who_to_wait_for(place: Place) -> None:
    made = place.open(wait=0.3)
    learners.add(made, "Ada")
    if place.url is None:
        holder = subprocess.Popen(
            [sys.executable, "-c", "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
             "c.execute('BEGIN EXCLUSIVE'); print('held', flush=True); sys.stdin.readline()",
             str(place.data / "studio.db")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    else:
        holder = subprocess.Popen(
            [sys.executable, "-c", "import psycopg, sys; c = psycopg.connect(sys.argv[1]);"
             "c.execute('LOCK TABLE learners IN EXCLUSIVE MODE'); print('held', flush=True); sys.stdin.readline()",
             place.url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    try:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        start = time.monotonic()
        with pytest.raises(ResourceError, match=r"kept it locked for 0.3 s; nothing was changed\. Try again"):
            learners.add(made, "Bob")
        assert time.monotonic() - start >= 0.29
        assert [one.name for one in learners.everyone(made)] == ["Ada"]
        second = place.open(wait=0.3)
        assert learners.current(second).name == "Ada"
        second.close()
    finally:
        holder.communicate("\n", timeout=30)
    assert learners.add(made, "Bob").name == "Bob"
    made.close()


def test_a_lock_that_ends_in_time_is_waited_for(tmp_path: Path) -> None:
    made = open_database(None, tmp_path)
    raw = sqlite3.connect(tmp_path / "studio.db", isolation_level=None, check_same_thread=False)
    raw.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.4, raw.execute, ["COMMIT"])
    timer.start()
    assert learners.add(made, "Ada").name == "Ada"
    timer.join()
    raw.close()
    made.close()


def test_two_that_make_a_file_at_once_wait_for_each_other(tmp_path: Path) -> None:
    """SQLite may refuse to switch the journal at once, whatever its timeout (1 in 360 where six did)."""
    holder = sqlite3.connect(tmp_path / "new.db", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    other = sqlite3.connect(tmp_path / "new.db", isolation_level=None, timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite._write_ahead(other, 0.1)
    timer = threading.Timer(0.2, holder.execute, ["COMMIT"])
    timer.start()
    sqlite._write_ahead(other, 10)
    timer.join()
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()
    holder.close()


def test_a_file_that_another_program_keeps_for_itself_is_refused(tmp_path: Path) -> None:
    open_database(None, tmp_path).close()
    raw = sqlite3.connect(tmp_path / "studio.db", isolation_level=None)
    raw.execute("PRAGMA locking_mode = EXCLUSIVE")
    raw.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ResourceError, match=r"studio\.db: another program kept it locked for 0.2 s"):
        open_database(None, tmp_path, wait=0.2)
    raw.close()
    open_database(None, tmp_path, wait=0.2).close()


# --- Damaged


def kept(folder: Path) -> Path:
    """A closed database with some content."""
    made = open_database(None, folder)
    you = learners.current(made).id
    for number in range(300):
        record.answer(made, you, "lesson:a", f"question-{number}", 1, True, NOW)
    made.close()
    return folder / "studio.db"


def test_garbage_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "studio.db"
    garbage = random.Random(1).randbytes(40_000)
    path.write_bytes(garbage)
    with pytest.raises(FileError, match=r"studio\.db: the database is damaged .*Put a backup in its place, or move"):
        open_database(None, tmp_path)
    assert path.read_bytes() == garbage


@pytest.mark.parametrize("left", [50, 4096, 10_000, 20_480])
def test_a_truncated_file_is_refused_and_left_alone(tmp_path: Path, left: int) -> None:
    path = kept(tmp_path)
    assert path.stat().st_size > 2 * 20_480
    os.truncate(path, left)
    before = path.read_bytes()
    with pytest.raises(FileError, match="the database is damaged"):
        open_database(None, tmp_path)
    assert path.read_bytes() == before


def test_damage_further_in_is_said_where_it_is_met(tmp_path: Path) -> None:
    path = kept(tmp_path)
    with sqlite3.connect(path) as connection:
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        wanted = "SELECT rootpage FROM sqlite_master WHERE name IN ('lessons', 'answers')"
        pages = [row[0] for row in connection.execute(wanted)]
    connection.close()
    data = bytearray(path.read_bytes())
    for page in pages:
        data[(page - 1) * size : page * size] = b"\xa5" * size
    path.write_bytes(data)
    made = open_database(None, tmp_path)
    with pytest.raises(FileError, match="the database is damaged"):
        record.progress(made, 1)
    made.close()


def test_a_file_that_was_removed_is_not_written_in_vain(tmp_path: Path) -> None:
    made = open_database(None, tmp_path)
    os.rename(tmp_path / "studio.db", tmp_path / "gone.db")
    with pytest.raises(FileError, match="removed or replaced while in use"):
        learners.add(made, "Ada")
    shutil.copy(tmp_path / "gone.db", tmp_path / "studio.db")
    with pytest.raises(FileError, match="removed or replaced while in use"):
        learners.add(made, "Ada")
    os.rename(tmp_path / "gone.db", tmp_path / "studio.db")
    assert learners.add(made, "Ada").name == "Ada"
    made.close()


# --- No room


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 1.5 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no file system may be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all room that is left."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 512):
                pass
        except OSError:
            pass
    return path


def write_much(made: Database, count: int) -> int:
    """Answers that could be kept before the disk was full."""
    for number in range(count):
        try:
            record.answer(made, 1, "lesson:a", f"q{number:06}" + "x" * 180, 1, True, NOW)
        except ResourceError as error:
            assert "the disk is full; nothing was changed. Free some space and try again" in str(error)
            return number
    return count


def test_a_full_disk_says_so_keeps_everything_and_can_be_read(small: Path) -> None:
    made = open_database(None, small)
    learners.current(made)
    filler = fill(small)
    written = write_much(made, 10_000)
    assert written < 10_000
    assert record.progress(made, 1).answered == written
    assert learners.current(made).name == "You" and settings.load(made, 1).theme == "auto"
    with pytest.raises(ResourceError, match="the disk is full"):
        jobs.add(made, "run", {"text": "x" * 100_000})
    filler.unlink()
    assert write_much(made, written + 3) == written + 3
    assert record.progress(made, 1).answered == written + 3
    made.close()


def test_a_studio_that_starts_on_a_full_disk_can_be_read(small: Path) -> None:
    made = open_database(None, small)
    learners.add(made, "Ada")
    made.close()
    filler = fill(small)
    again = open_database(None, small)
    assert learners.current(again).name == "Ada"
    with pytest.raises(ResourceError, match="the disk is full"):
        learners.add(again, "Bob")
    again.close()
    filler.unlink()
    last = open_database(None, small)
    assert learners.add(last, "Bob").name == "Bob"
    last.close()


def test_a_first_start_on_a_full_disk_says_so(small: Path) -> None:
    fill(small)
    with pytest.raises(ResourceError, match="the disk is full"):
        open_database(None, small)


def test_a_guest_may_read_where_no_profile_can_be_kept(small: Path) -> None:
    made = open_database(None, small)
    fill(small)
    write_pages(made)
    guest = learners.current(made)
    assert (guest.id, guest.name) == (learners.GUEST, "You")
    assert record.progress(made, guest.id).lessons == {} and days.streak(made, guest.id, NOW.date()) == 0
    with pytest.raises(ResourceError, match=r"nothing is kept. Free some space"):
        record.visit(made, guest.id, "a", "", NOW)
    made.close()


def write_pages(made: Database) -> None:
    """Use up what the write-ahead log has left."""
    for number in range(10_000):
        try:
            jobs.add(made, "run", {"number": number, "text": "x" * 500})
        except ResourceError:
            return


def as_person(code: str, place: Path, limit: int | None = None) -> str:
    """What a program prints that runs `code` as a user without rights; `data` is given to it."""
    head = f"""
        import os, resource
        from pathlib import Path
        from bitwright.errors import BitwrightError
        from bitwright.studio.store import jobs, learners
        from bitwright.studio.store.open import open_database
        import alembic.command, alembic.config, sqlalchemy.dialects.sqlite
        data = Path({str(place)!r})
        limit = {limit!r}
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid({PERSON})
            os.setuid({PERSON})
    """
    text = textwrap.dedent(head) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    return done.stdout.strip() + done.stderr.strip()


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder that a user without rights can get to."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    if os.geteuid() == 0:
        hidden = [parent for parent in Path(versions.__file__).parents if not parent.stat().st_mode & 0o001]
        if hidden:
            pytest.skip(f"a user without rights cannot get to the program: {hidden[-1]}")
        os.chown(folder, PERSON, PERSON)
        for parent in (tmp_path, *tmp_path.parents):
            if not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
    return folder


def test_a_file_size_limit_says_so_and_keeps_everything(theirs: Path) -> None:
    code = """
        made = open_database(None, data)
        you = learners.current(made).id
        try:
            for number in range(10_000):
                jobs.add(made, "run", {"text": "x" * 1000})
        except BitwrightError as error:
            print(type(error).__name__, error)
        print(len(jobs.list(made, limit=20_000)) == number > 10, learners.current(made).name)
    """
    found = as_person(code, theirs, 400_000)
    assert found.endswith("True You") and "ResourceError" in found and "the disk refused (disk I/O error)" in found


def test_a_read_only_folder_can_be_read_and_says_how_to_write(theirs: Path) -> None:
    made = open_database(None, theirs)
    learners.add(made, "Ada")
    made.close()
    theirs.chmod(0o555)
    (theirs / "studio.db").chmod(0o444)
    code = """
        made = open_database(None, data)
        print(learners.current(made).name)
        try:
            learners.add(made, "Bob")
        except BitwrightError as error:
            print(type(error).__name__, error)
    """
    found = as_person(code, theirs)
    theirs.chmod(0o755)
    assert found.startswith("Ada\nResourceError ") and found.endswith(
        "nothing was changed. Make the folder writable, or choose another with --data"
    ), found


@pytest.mark.parametrize("below", ["", "new/folder"])
def test_a_read_only_folder_without_a_database_is_refused(theirs: Path, below: str) -> None:
    theirs.chmod(0o555)
    code = """
        try:
            open_database(None, data)
        except BitwrightError as error:
            print(type(error).__name__, error)
    """
    found = as_person(code, theirs / below)
    theirs.chmod(0o755)
    assert found.startswith("ResourceError") and str(theirs / below) in found and "another with --data" in found, found


def test_a_file_where_the_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(ResourceError, match=r"the folder cannot be made .*Choose another with --data"):
        open_database(None, tmp_path / "data")


# --- Addresses


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("nonsense", "not the URL of a database"),
        ("", "not the URL of a database"),
        ("postgresql://u:secret@host:port/name", "not the URL of a database"),
        ("mysql://u:secret@host/name", "mysql:// is not a kind of database"),
        ("sqlite:///secret.db", "sqlite:// is not a kind of database"),
        ("postgresql+asyncpg://u:secret@host/name", r"postgresql\+asyncpg:// is not a kind"),
        ("postgresql://u:secret@host", "names no database"),
    ],
)
def test_a_wrong_url_says_what_it_should_be_and_no_password(tmp_path: Path, url: str, what: str) -> None:
    with pytest.raises(InputError, match=what) as caught:
        open_database(url, tmp_path)
    assert "postgresql://USER:PASSWORD@HOST/NAME" in str(caught.value) and "secret" not in str(caught.value)


def test_a_server_that_is_not_there_says_so(tmp_path: Path) -> None:
    url = f"postgresql://u:secret@127.0.0.1:{free_port()}/name"
    with pytest.raises(ResourceError, match=r"no connection to PostgreSQL .*that the server runs") as caught:
        open_database(url, tmp_path)
    assert "secret" not in str(caught.value) and "u:***@127.0.0.1" in str(caught.value)


def test_a_wrong_password_and_a_missing_database_say_so(postgresql: str, tmp_path: Path) -> None:
    for url in (postgresql.replace("studio:", "studio:not") + "/postgres", postgresql + "/nowhere"):
        with pytest.raises(ResourceError, match=r"(password|exist).*has this database and user") as caught:
            open_database(url, tmp_path)
        assert postgresql.partition("@")[0].rpartition(":")[2] not in str(caught.value)


def test_a_missing_driver_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ResourceError, match=r"needs psycopg .*pip install 'bitwright\[postgres\]'"):
        open_database("postgresql://u@127.0.0.1/name", tmp_path)


@pytest.mark.parametrize(
    ("code", "kind", "what"),
    [
        ("53100", ResourceError, "the server's disk is full; nothing was changed"),
        ("53300", ResourceError, "the server refused"),
        ("XX001", FileError, "the database is damaged"),
        ("42501", ResourceError, "the server refused"),
        ("57P01", ResourceError, "no connection"),
    ],
)
def test_what_a_server_says_is_said_in_words(
    postgresql_url: str, tmp_path: Path, code: str, kind: type[BitwrightError], what: str
) -> None:
    made = open_database(postgresql_url, tmp_path)
    with pytest.raises(kind, match=what), made.begin() as connection:
        connection.exec_driver_sql(f"DO $$ BEGIN RAISE EXCEPTION 'as asked' USING ERRCODE = '{code}'; END $$")
    made.close()


def test_a_server_that_was_restarted_is_found_again(postgresql_url: str, tmp_path: Path) -> None:
    made = open_database(postgresql_url, tmp_path)
    learners.add(made, "Ada")
    other = sa.create_engine(postgresql_url.replace("postgresql:", "postgresql+psycopg:"))

    def kill() -> None:
        others = "pid <> pg_backend_pid() AND datname = current_database()"
        with other.connect() as connection:
            connection.exec_driver_sql(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}")

    def write() -> None:
        with made.begin() as mine:
            kill()
            mine.execute(sa.insert(schema.learners).values(name="Bob", created=NOW))

    kill()
    assert [one.name for one in learners.everyone(made)] == ["Ada"]
    with pytest.raises(ResourceError, match="no connection to PostgreSQL"):
        write()
    assert [one.name for one in learners.everyone(made)] == ["Ada"]
    other.dispose()
    made.close()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_postgresql_url_may_have_any_of_its_names(postgresql_url: str, tmp_path: Path, scheme: str) -> None:
    made = open_database(postgresql_url.replace("postgresql:", f"{scheme}:"), tmp_path)
    assert not made.is_sqlite and "***" in made.where
    made.close()
