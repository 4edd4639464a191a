"""Submissions while studios are killed: none is lost, none gets two verdicts, on both engines."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bitwright.judge.judge import Judge
from bitwright.judge.pool import Broken, Unavailable
from bitwright.studio.practice import standing, submissions
from bitwright.studio.shell.config import Config
from bitwright.studio.shell.house import House, build
from bitwright.studio.store import jobs, learners
from bitwright.studio.store.database import Database
from tests.studio.conftest import Place
from tests.studio.house import Studio
from tests.studio.problems import RIGHT, WRONG, write

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
AUDIT = {
    True: (
        "CREATE TRIGGER audited AFTER UPDATE OF verdict ON submissions WHEN NEW.verdict IS NOT NULL "
        "BEGIN INSERT INTO audit VALUES (NEW.id); END",
    ),
    False: (
        "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO audit VALUES (NEW.id); RETURN NEW; END'",
        "CREATE TRIGGER audited AFTER UPDATE OF verdict ON submissions FOR EACH ROW WHEN (NEW.verdict IS NOT NULL) "
        "EXECUTE FUNCTION audit()",
    ),
}
"""Is SQLite -> what writes down every verdict that a submission is given."""


def audited(database: Database) -> None:
    with database.begin() as connection:
        for statement in ("CREATE TABLE audit (submission INTEGER)", *AUDIT[database.is_sqlite]):
            connection.exec_driver_sql(statement)


def verdicts(database: Database) -> tuple[dict[int, str | None], Counter[int]]:
    """Verdict of each submission, and how often each was given one."""
    with database.read() as connection:
        found = connection.exec_driver_sql("SELECT id, verdict FROM submissions").all()
        given = connection.exec_driver_sql("SELECT submission FROM audit").scalars().all()
    return {row[0]: row[1] for row in found}, Counter(given)


class Client(threading.Thread):
    """Submits to whichever studio answers; remembers what was accepted, by number."""

    def __init__(self, studios: list[Studio], count: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.studios, self.count, self.random = studios, count, random.Random(seed)
        self.sent: dict[int, str] = {}
        self.heard: dict[int, str] = {}

    def run(self) -> None:
        until = time.monotonic() + 120
        while len(self.sent) < self.count and time.monotonic() < until:
            right = self.random.random() < 0.5
            try:
                self._submit(self.random.choice(self.studios).url, RIGHT if right else WRONG, "AC" if right else "WA")
            except (httpx2.HTTPError, httpx2.StreamError):
                time.sleep(0.05)

    def _submit(self, url: str, code: str, verdict: str) -> None:
        path = f"{url}/api/practice/double/submit"
        with httpx2.stream("POST", path, json={"code": code}, timeout=30) as answer:
            if answer.status_code != 200:
                return
            id = int(answer.headers["x-submission"])
            self.sent[id] = verdict
            for line in answer.iter_lines():
                if line == "event: result":
                    self.heard[id] = verdict


@pytest.mark.slow
def test_killed_studios_lose_nothing_and_judge_nothing_twice(place: Place, tmp_path: Path) -> None:
    database = place.open()
    audited(database)
    learners.current(database)
    options = {"content": str(write(tmp_path / "content")), "database": place.url}
    studios = [Studio(place.data, **options).start() for _ in range(2)]
    clients = [Client(studios, 15, seed) for seed in range(4)]
    for client in clients:
        client.start()
    chosen = random.Random(1)
    for _ in range(4):
        time.sleep(chosen.uniform(0.2, 0.7))
        one = chosen.choice(studios)
        one.kill()
        one.start()
    for client in clients:
        client.join(150)
    sent = {id: verdict for client in clients for id, verdict in client.sent.items()}
    until = time.monotonic() + 40
    while None in (found := verdicts(database))[0].values() and time.monotonic() < until:
        time.sleep(0.2)
    for one in studios:
        one.kill()
    kept, given = found
    assert len(sent) >= 60 and set(sent) <= set(kept), "what was taken is there"
    assert {id: kept[id] for id in sent} == sent, "each with its verdict"
    assert set(given) == set(kept) and set(given.values()) == {1}, "and with no other"
    assert {job.state for job in jobs.list(database, submissions.KIND)} == {"done"}
    found = standing.standings(database, learners.current(database).id)["double"]
    assert (found.state, found.tries) == ("solved", len(kept))
    database.close()


# --- One studio's parts


@pytest.fixture
def parts(place: Place, tmp_path: Path) -> Iterator[House]:
    database = place.open()
    learners.current(database)
    yield build(Config(data=place.data, content=write(tmp_path / "content")), database)
    database.close()


async def told(parts: House, code: str = RIGHT) -> list[dict[str, Any]]:
    you = learners.current(parts.database).id
    _, events = await parts.judge.submit(you, parts.shelf.problem("double"), code, NOW)
    return [event async for event in events if event is not None]


async def test_what_was_left_is_judged_at_the_start(parts: House) -> None:
    you = learners.current(parts.database).id
    left = [submissions.submit(parts.database, you, "double", RIGHT, NOW)[0]]
    left.append(submissions.submit(parts.database, you, "double", WRONG, NOW, "another-machine:1:x", -1.0)[0])
    left.append(submissions.submit(parts.database, you, "gone", RIGHT, NOW)[0])
    await parts.judge.start()
    found = [(await _judged(parts, id)).verdict for id in left]
    await parts.judge.close()
    assert found == ["AC", "WA", "IE"]


async def test_what_another_holds_is_left_to_it(parts: House) -> None:
    you = learners.current(parts.database).id
    id, job = submissions.submit(parts.database, you, "double", RIGHT, NOW, "another-machine:1:x", 60.0)
    await parts.judge.start()
    assert (await told(parts))[-1]["verdict"] == "AC"
    await parts.judge.close()
    assert submissions.get(parts.database, id).verdict is None  # type: ignore[union-attr]
    assert jobs.get(parts.database, job).state == "running"  # type: ignore[union-attr]


async def test_our_fault_is_tried_once_more(parts: House, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real = Judge.submit

    def failing(self: Judge, *args: Any) -> Any:
        calls.append(args[1])
        if len(calls) == 1 or args[1] == WRONG:
            raise Broken("it died")
        return real(self, *args)

    monkeypatch.setattr(Judge, "submit", failing)
    await parts.judge.start()
    assert (await told(parts))[-1]["verdict"] == "AC" and len(calls) == 2
    last = (await told(parts, WRONG))[-1]
    await parts.judge.close()
    assert last["verdict"] == "IE" and len(calls) == 4 and "not counted" in last["sentence"]
    assert standing.standings(parts.database, learners.current(parts.database).id)["double"].tries == 1


async def test_closing_gives_back_what_has_no_verdict(parts: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: Judge, *args: Any) -> Any:
        time.sleep(0.5)
        raise Unavailable("the judge is closed")

    monkeypatch.setattr(Judge, "submit", slow)
    await parts.judge.start()
    you = learners.current(parts.database).id
    id, _ = await parts.judge.submit(you, parts.shelf.problem("double"), RIGHT, NOW)
    await parts.judge.close()
    monkeypatch.undo()
    [job] = jobs.list(parts.database, submissions.KIND)
    assert (job.state, job.attempts) == ("waiting", 0)
    await parts.judge.start()
    assert (await _judged(parts, id)).verdict == "AC"
    await parts.judge.close()


async def _judged(parts: House, id: int) -> submissions.Submission:
    for _ in range(300):
        found = submissions.get(parts.database, id)
        assert found is not None
        if found.verdict is not None:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError("waited in vain")
