"""Jobs: leased by one owner at a time, never lost, never done twice, on both engines."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bitwright.errors import InputError
from bitwright.studio.store import jobs, schema
from bitwright.studio.store.database import Database
from bitwright.studio.store.open import open_database
from tests.studio.conftest import Place

LONG = 600.0
ROOT = Path(__file__).parents[3]


def state(database: Database, id: int) -> str:
    found = jobs.get(database, id)
    assert found is not None
    return found.state


def claimed(database: Database, owner: str = "me", seconds: float = LONG, **options: Any) -> jobs.Job:
    """A new job that `owner` has claimed."""
    made = jobs.add(database, "run", {"bits": 4}, **options)
    found = jobs.claim(database, ["run"], owner, seconds)
    assert found is not None and found.id == made
    return found


def expire(database: Database, id: int) -> None:
    """Let a lease run out."""
    with database.begin() as connection:
        past = datetime.now(UTC) - timedelta(minutes=5)
        connection.execute(sa.update(schema.jobs).where(schema.jobs.c.id == id).values(lease=past))


# --- One owner


def test_a_job_is_added_claimed_reported_and_done(database: Database) -> None:
    payload = {"model": "ü", "bits": 4, "nested": {"list": [1, 2.5, None, True]}}
    id = jobs.add(database, "run", payload)
    new = jobs.get(database, id)
    assert new is not None and (new.state, new.payload, new.attempts, new.owner) == ("waiting", payload, 0, None)
    assert abs(new.added - datetime.now(UTC)) < timedelta(minutes=1) and new.added.utcoffset() == timedelta(0)
    job = jobs.claim(database, ["run"], "me", LONG)
    assert job is not None and job == jobs.get(database, id)
    assert (job.state, job.owner, job.attempts) == ("running", "me", 1)
    assert job.lease is not None and job.started is not None
    assert job.lease - job.started == timedelta(seconds=LONG)
    assert jobs.report(database, id, "me", {"done": 3, "of": 21})
    assert jobs.finish(database, id, "me", {"folder": "out"})
    done = jobs.get(database, id)
    assert done is not None and done.ended is not None and done.lease is None
    assert (done.state, done.progress, done.result) == ("done", {"done": 3, "of": 21}, {"folder": "out"})
    assert jobs.claim(database, ["run"], "me", LONG) is None


def test_the_oldest_of_the_wanted_kinds_comes_first(database: Database) -> None:
    made = [jobs.add(database, kind, {}) for kind in ("judge", "run", "check", "run")]
    assert jobs.claim(database, [], "me", LONG) is None
    assert jobs.claim(database, ["other"], "me", LONG) is None
    found = [jobs.claim(database, ["run", "check"], "me", LONG) for _ in range(4)]
    assert [job.id if job else None for job in found] == [*made[1:], None]


def test_a_delayed_job_waits_until_it_is_due(database: Database) -> None:
    jobs.add(database, "run", {}, delay=0.5)
    assert jobs.claim(database, ["run"], "me", LONG) is None
    time.sleep(0.6)
    assert jobs.claim(database, ["run"], "me", LONG) is not None


def test_nobody_gets_a_job_that_is_held(database: Database) -> None:
    job = claimed(database)
    assert jobs.claim(database, ["run"], "other", LONG) is None
    assert not jobs.finish(database, job.id, "other", 1)
    assert not jobs.fail(database, job.id, "other", "no")
    assert not jobs.report(database, job.id, "other", 1)
    assert not jobs.stopped(database, job.id, "other")
    assert not jobs.release(database, job.id, "other")
    assert jobs.renew(database, "other", LONG) == {}
    assert jobs.get(database, job.id) == job


def test_a_lease_that_ran_out_is_taken_over_and_its_owner_can_do_no_more(database: Database) -> None:
    first = claimed(database, "first", seconds=0.05)
    time.sleep(0.1)
    second = jobs.claim(database, ["run"], "second", LONG)
    assert second is not None and (second.id, second.attempts, second.owner) == (first.id, 2, "second")
    assert not jobs.finish(database, first.id, "first", "mine")
    assert not jobs.fail(database, first.id, "first", "mine")
    assert not jobs.report(database, first.id, "first", "mine")
    assert jobs.renew(database, "first", LONG) == {}
    assert jobs.get(database, first.id) == second
    assert jobs.finish(database, first.id, "second", "ours")
    assert not jobs.finish(database, first.id, "second", "again")
    done = jobs.get(database, first.id)
    assert done is not None and done.result == "ours"


def test_a_renewed_lease_does_not_run_out(database: Database) -> None:
    job = claimed(database, seconds=0.3)
    for _ in range(4):
        time.sleep(0.1)
        assert jobs.renew(database, "me", 5) == {job.id: "running"}
        assert jobs.claim(database, ["run"], "other", LONG) is None
    assert jobs.finish(database, job.id, "me")


def test_work_that_is_late_but_not_taken_over_counts(database: Database) -> None:
    job = claimed(database)
    expire(database, job.id)
    assert jobs.finish(database, job.id, "me", "late")
    assert jobs.claim(database, ["run"], "other", LONG) is None


# --- Failing


def test_a_failed_job_says_why(database: Database) -> None:
    job = claimed(database)
    assert jobs.fail(database, job.id, "me", {"text": "model.safetensors: truncated", "fix": "Fetch it again"})
    found = jobs.get(database, job.id)
    assert found is not None and found.state == "failed" and found.ended is not None and found.lease is None
    assert found.error == {"text": "model.safetensors: truncated", "fix": "Fetch it again"}
    assert jobs.claim(database, ["run"], "me", LONG) is None


def test_a_failure_that_is_not_final_is_tried_again_until_the_attempts_are_spent(database: Database) -> None:
    job = claimed(database, limit=2)
    assert jobs.fail(database, job.id, "me", "busy", final=False)
    assert state(database, job.id) == "waiting"
    assert jobs.claim(database, ["run"], "me", LONG) is not None
    assert jobs.fail(database, job.id, "me", "busy", final=False)
    found = jobs.get(database, job.id)
    assert found is not None and (found.state, found.attempts, found.error) == ("failed", 2, "busy")
    assert found.ended is not None


def test_without_a_limit_it_is_tried_as_often_as_it_takes(database: Database) -> None:
    job = claimed(database)
    for _ in range(5):
        assert jobs.fail(database, job.id, "me", "busy", final=False)
        assert jobs.claim(database, ["run"], "me", LONG) is not None
    assert jobs.fail(database, job.id, "me", "busy", final=False, delay=LONG)
    assert jobs.claim(database, ["run"], "me", LONG) is None


def test_a_job_that_kills_its_owners_fails_in_the_end(database: Database) -> None:
    job = claimed(database, limit=2)
    other = jobs.add(database, "run", {})
    expire(database, job.id)
    again = jobs.claim(database, ["run"], "second", LONG)
    assert again is not None and (again.id, again.attempts) == (job.id, 2)
    expire(database, job.id)
    third = jobs.claim(database, ["run"], "third", LONG)
    assert third is not None and third.id == other
    found = jobs.get(database, job.id)
    assert found is not None and found.state == "failed" and "died each time" in found.error["text"]
    assert not jobs.finish(database, job.id, "second")


def test_going_home_gives_the_job_back_as_if_never_claimed(database: Database) -> None:
    job = claimed(database, limit=1)
    assert jobs.report(database, job.id, "me", {"done": 3})
    assert jobs.release(database, job.id, "me")
    again = jobs.claim(database, ["run"], "other", LONG)
    assert again is not None and (again.id, again.attempts, again.progress) == (job.id, 1, {"done": 3})
    assert not jobs.finish(database, job.id, "me")


# --- Stopping


def test_a_waiting_job_stops_at_once(database: Database) -> None:
    id = jobs.add(database, "run", {})
    assert jobs.stop(database, id)
    found = jobs.get(database, id)
    assert found is not None and found.state == "stopped" and found.ended is not None
    assert jobs.claim(database, ["run"], "me", LONG) is None
    assert not jobs.stop(database, id)


def test_a_running_job_stops_when_its_owner_has_seen_it(database: Database) -> None:
    job = claimed(database)
    assert jobs.stop(database, job.id) and jobs.stop(database, job.id)
    assert state(database, job.id) == "stopping"
    assert jobs.renew(database, "me", LONG) == {job.id: "stopping"}
    assert jobs.report(database, job.id, "me", {"done": 7})
    assert jobs.claim(database, ["run"], "other", LONG) is None
    assert jobs.stopped(database, job.id, "me")
    found = jobs.get(database, job.id)
    assert found is not None and (found.state, found.progress) == ("stopped", {"done": 7})


def test_a_job_that_was_done_before_it_could_stop_is_done(database: Database) -> None:
    job = claimed(database)
    assert jobs.stop(database, job.id) and jobs.finish(database, job.id, "me", "all")
    assert state(database, job.id) == "done" and not jobs.stop(database, job.id)


@pytest.mark.parametrize("way", ["fail", "release", "stop", "claim"])
def test_a_job_asked_to_stop_never_runs_again(database: Database, way: str) -> None:
    job = claimed(database)
    assert jobs.stop(database, job.id)
    if way == "fail":
        assert jobs.fail(database, job.id, "me", "busy", final=False)
    elif way == "release":
        assert jobs.release(database, job.id, "me")
    else:
        expire(database, job.id)
        if way == "stop":
            assert jobs.stop(database, job.id)
    assert jobs.claim(database, ["run"], "other", LONG) is None
    found = jobs.get(database, job.id)
    assert found is not None and found.state == "stopped" and found.ended is not None
    assert not jobs.finish(database, job.id, "me")


def test_a_stopped_or_failed_job_goes_on(database: Database) -> None:
    job = claimed(database, limit=1)
    assert not jobs.resume(database, job.id)
    assert jobs.report(database, job.id, "me", {"done": 7})
    assert jobs.stop(database, job.id) and not jobs.resume(database, job.id)
    assert jobs.stopped(database, job.id, "me") and jobs.resume(database, job.id)
    again = jobs.claim(database, ["run"], "me", LONG)
    assert again is not None and (again.id, again.attempts, again.progress) == (job.id, 1, {"done": 7})
    assert jobs.fail(database, job.id, "me", "no") and jobs.resume(database, job.id)
    found = jobs.get(database, job.id)
    assert found is not None and (found.state, found.error, found.ended) == ("waiting", None, None)
    assert jobs.claim(database, ["run"], "me", LONG) is not None and jobs.finish(database, job.id, "me")
    assert not jobs.resume(database, job.id)


# --- Looking and removing


def test_the_newest_are_listed_first(database: Database) -> None:
    made = [jobs.add(database, kind, {}) for kind in ("run", "judge", "run", "run")]
    jobs.claim(database, ["run"], "me", LONG)
    assert [job.id for job in jobs.list(database)] == made[::-1]
    assert [job.id for job in jobs.list(database, "run")] == [made[3], made[2], made[0]]
    assert [job.id for job in jobs.list(database, "run", limit=2)] == [made[3], made[2]]
    assert [job.id for job in jobs.list(database, states=("running",))] == [made[0]]


def test_only_what_does_not_run_is_removed_and_its_number_not_used_again(database: Database) -> None:
    job = claimed(database)
    assert not jobs.remove(database, job.id)
    assert jobs.stop(database, job.id) and not jobs.remove(database, job.id)
    assert jobs.stopped(database, job.id, "me") and jobs.remove(database, job.id)
    assert jobs.get(database, job.id) is None and not jobs.remove(database, job.id)
    assert jobs.add(database, "run", {}) > job.id


@pytest.mark.parametrize("id", [0, -1, 99, 2**31, 2**63, 10**30])
def test_a_number_that_no_job_has_is_no_job(database: Database, id: int) -> None:
    assert jobs.get(database, id) is None
    assert not jobs.stop(database, id) and not jobs.resume(database, id) and not jobs.remove(database, id)
    assert not jobs.finish(database, id, "me") and not jobs.fail(database, id, "me", "x")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), Path("x"), b"x", {1, 2}])
def test_only_plain_json_is_kept(database: Database, bad: Any) -> None:
    with pytest.raises(InputError, match="payload: not plain JSON"):
        jobs.add(database, "run", {"value": bad})
    job = claimed(database)
    for write in (jobs.finish, jobs.fail, jobs.report):
        with pytest.raises(InputError, match="not plain JSON"):
            write(database, job.id, "me", [bad])
    assert state(database, job.id) == "running"


def test_odd_text_in_json_comes_back(database: Database) -> None:
    odd = {"nul": "a\x00b", "half": "\ud800", "quote": "'\"\\", "ü": "😀"}
    id = jobs.add(database, "run", odd)
    found = jobs.get(database, id)
    assert found is not None and found.payload == odd


def test_asking_for_work_where_there_is_none_does_not_write(place: Place, database: Database) -> None:
    claimed(database)
    with database.begin():
        start = time.monotonic()
        assert jobs.claim(database, ["run"], "other", LONG) is None
        assert time.monotonic() - start < 1, "it would wait for the writer"


# --- Many at once


def test_threads_never_get_the_same_job(database: Database) -> None:
    made = [jobs.add(database, "run", {}) for _ in range(40)]

    def work(number: int) -> list[int]:
        mine = []
        while (job := jobs.claim(database, ["run"], f"thread-{number}", LONG)) is not None:
            mine.append(job.id)
            assert jobs.finish(database, job.id, f"thread-{number}")
        return mine

    with ThreadPoolExecutor(8) as pool:
        found = [id for future in [pool.submit(work, number) for number in range(8)] for id in future.result()]
    assert sorted(found) == made


def test_a_job_that_somebody_is_about_to_take_is_passed_over(postgresql_url: str, tmp_path: Path) -> None:
    database = open_database(postgresql_url, tmp_path, wait=1)
    first, second = (jobs.add(database, "run", {}) for _ in range(2))
    with database.begin() as connection:
        connection.execute(sa.select(schema.jobs.c.id).where(schema.jobs.c.id == first).with_for_update())
        found = jobs.claim(database, ["run"], "me", LONG)
    assert found is not None and found.id == second
    database.close()


WORKER = """
import sys, time, random
from pathlib import Path
from bitwright.studio.store import jobs
from bitwright.studio.store.open import open_database
from bitwright.errors import ResourceError

url, data, owner, lease = sys.argv[1] or None, Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])
database = open_database(url, data, wait=30)
chance = random.Random(owner)
print("ready", flush=True)
while True:
    job = jobs.claim(database, ["run"], owner, lease)
    if job is None:
        if all(one.state == "done" for one in jobs.list(database)):
            break
        time.sleep(0.02)
        continue
    assert jobs.report(database, job.id, owner, {"by": owner})
    time.sleep(chance.random() * 0.02)
    if jobs.finish(database, job.id, owner, {"by": owner, "attempt": job.attempts}):
        print("finished", job.id, flush=True)
database.close()
"""

AUDIT = {
    "sqlite": (
        """CREATE TRIGGER audit AFTER UPDATE OF state ON jobs WHEN new.state = 'done'
        BEGIN INSERT INTO finished VALUES (new.id, new.owner); END""",
    ),
    "postgresql": (
        """CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO finished VALUES (new.id, new.owner); RETURN NULL; END $$""",
        """CREATE TRIGGER audit AFTER UPDATE OF state ON jobs FOR EACH ROW WHEN (new.state = 'done')
        EXECUTE FUNCTION audit()""",
    ),
}
"""The database itself writes down every time that a job becomes done."""


@pytest.mark.slow
def test_200_jobs_and_4_workers_some_killed_none_lost_none_finished_twice(place: Place, database: Database) -> None:
    with database.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE finished (id INTEGER, owner TEXT)")
        for statement in AUDIT[database.engine.dialect.name]:
            connection.exec_driver_sql(statement)
    made = [jobs.add(database, "run", {"number": number}) for number in range(200)]
    chance = random.Random(4)

    def start(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER, place.url or "", str(place.data), name, "1.0"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)

    workers = {f"worker-{number}": start(f"worker-{number}") for number in range(4)}
    doomed = list(workers)[:3]
    said = dict.fromkeys(workers, "")
    try:
        for number, name in enumerate(doomed):
            process = workers[name]
            assert process.stdout is not None and process.stdout.readline() == "ready\n", process.communicate()
            until = time.monotonic() + 60
            # Killed while it holds a job: frozen first, so that it cannot finish between the look and the blow.
            while time.monotonic() < until:
                time.sleep(chance.random() * 0.05)
                os.kill(process.pid, signal.SIGSTOP)
                held = [one for one in jobs.list(database, states=("running",)) if one.owner == name]
                if held:
                    break
                os.kill(process.pid, signal.SIGCONT)
            else:
                pytest.fail(f"{name} never held a job")
            process.kill()
            said[name] = process.communicate(timeout=60)[0]
            workers[f"late-{number}"] = start(f"late-{number}")
        for name, process in workers.items():
            if name not in doomed:
                out, problems = process.communicate(timeout=240)
                assert process.returncode == 0, problems
                said[name] = out
    finally:
        for process in workers.values():
            process.kill()
            process.wait()
    found = jobs.list(database)
    assert sorted(job.id for job in found) == made and {job.state for job in found} == {"done"}
    with database.read() as connection:
        finished = connection.exec_driver_sql("SELECT id, owner FROM finished ORDER BY id").all()
    assert [row.id for row in finished] == made, "each became done exactly once"
    assert {row.id: row.owner for row in finished} == {job.id: job.result["by"] for job in found}
    assert sum(job.attempts > 1 for job in found) >= 3, "what the killed held was taken over"
    claims = [line for text in said.values() for line in text.splitlines() if line.startswith("finished")]
    assert len(claims) == len(set(claims)) <= 200


# --- As a part of more


def test_a_job_can_be_added_claimed_and_finished_within_a_transaction(database: Database) -> None:
    def broken(work: Callable[[Any], object]) -> None:
        with database.begin() as connection:
            work(connection)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken(lambda connection: jobs.add_within(database, connection, "run", {}, owner="me", seconds=LONG))
    assert jobs.list(database) == ()
    with database.begin() as connection:
        id = jobs.add_within(database, connection, "run", {}, owner="me", seconds=LONG)
    job = jobs.get(database, id)
    assert job is not None and (job.state, job.owner, job.attempts) == ("running", "me", 1)
    assert jobs.claim(database, ["run"], "other", LONG) is None
    with pytest.raises(ZeroDivisionError):
        broken(lambda connection: jobs.finish_within(database, connection, id, "me"))
    assert state(database, id) == "running"
    with database.begin() as connection:
        assert not jobs.finish_within(database, connection, id, "other")
        assert jobs.finish_within(database, connection, id, "me", 1)
    assert state(database, id) == "done"


def test_all_that_an_owner_holds_is_renewed_at_once(database: Database) -> None:
    mine = [claimed(database).id for _ in range(3)]
    claimed(database, "other")
    assert jobs.finish(database, mine[0], "me")
    for id in mine[1:]:
        expire(database, id)
    assert jobs.renew(database, "me", LONG) == dict.fromkeys(mine[1:], "running")
    assert jobs.claim(database, ["run"], "third", LONG) is None
    assert jobs.renew(database, "nobody", LONG) == {}
