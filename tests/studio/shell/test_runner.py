"""The leased runner with a trade that does nothing but what a test wants of it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from bitwright.errors import InputError, Interrupted, ResourceError
from bitwright.studio.shell import owner, runner
from bitwright.studio.shell.runner import End, Held, Runner, Trade
from bitwright.studio.store import jobs, schema
from bitwright.studio.store.database import Database
from bitwright.studio.store.open import open_database


class Plain(Trade):
    """Does what its jobs say, two at a time."""

    kind = "plain"

    def __init__(self, database: Database) -> None:
        self.database, self.runner = database, Runner(database, self)
        self.begun: list[int] = []
        self.stops: dict[int, asyncio.Event] = {}

    async def has_room(self) -> bool:
        return len(self.runner.held) < 2

    async def work(self, held: Held) -> End:
        number = held.job.id
        self.begun.append(number)
        match held.job.payload["do"]:
            case "wait":
                stop = self.stops[number] = asyncio.Event()
                await stop.wait()
                raise Interrupted("stopped")
            case "refuse":
                raise InputError("does not fit")
            case "stumble":
                raise KeyError("nobody thought of this")
            case "die":
                raise ResourceError("died")
        return End("done", partial(jobs.finish, self.database, number, self.runner.owner, "made"), result="made")

    def again(self, error: Exception) -> float | None:
        return 0.0 if isinstance(error, ResourceError) else None

    async def interrupt(self, held: Held) -> None:
        if held.job.id in self.stops:
            self.stops[held.job.id].set()


@pytest.fixture
def trade(database: Database, monkeypatch: pytest.MonkeyPatch) -> Plain:
    monkeypatch.setattr(runner, "POLL", 0.05)
    monkeypatch.setattr(runner, "RENEW", 0.05)
    return Plain(database)


def add(trade: Plain, do: str, limit: int = 3) -> int:
    return jobs.add(trade.database, "plain", {"do": do}, limit=limit)


async def when(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("waited in vain")


async def reached(trade: Plain, id: int, state: str) -> jobs.Job:
    found: list[jobs.Job] = []

    def there() -> bool:
        job = jobs.get(trade.database, id)
        found[:] = [job] if job is not None and job.state == state else []
        return bool(found)

    await when(there)
    return found[0]


async def running(trade: Plain, then: Awaitable[None], patience: float = 0.0) -> None:
    await trade.runner.start()
    try:
        await then
    finally:
        await trade.runner.close(patience)
        await trade.runner.release()


async def test_each_job_ends_in_its_own_way(trade: Plain, capfd: pytest.CaptureFixture[str]) -> None:
    made, refused, odd, dying = (add(trade, do) for do in ("make", "refuse", "stumble", "die"))

    async def look() -> None:
        assert (await reached(trade, made, "done")).result == "made"
        assert (await reached(trade, refused, "failed")).error["text"] == "does not fit"
        assert "unexpected error" in (await reached(trade, odd, "failed")).error["text"]
        assert (await reached(trade, dying, "failed")).attempts == 3

    await running(trade, look())
    assert trade.begun.count(dying) == 3 and trade.begun.count(refused) == 1
    assert "nobody thought of this" in capfd.readouterr().err


async def test_there_are_no_more_at_a_time_than_hands(trade: Plain) -> None:
    first, second, third = (add(trade, "wait") for _ in range(3))

    async def look() -> None:
        await reached(trade, second, "running")
        await asyncio.sleep(0.2)
        assert trade.begun == [first, second]
        assert jobs.stop(trade.database, first)  # by somebody else: this runner sees it as it renews
        await reached(trade, first, "stopped")
        await reached(trade, third, "running")
        assert jobs.stop(trade.database, third)
        await trade.runner.stop(third)
        await reached(trade, third, "stopped")

    await running(trade, look())
    assert (await reached(trade, second, "waiting")).attempts == 0, "closing gives back what it interrupts"


async def test_what_does_not_stop_in_time_is_given_back(trade: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    id = add(trade, "wait")
    monkeypatch.setattr(Plain, "interrupt", Trade.interrupt)

    async def look() -> None:
        await reached(trade, id, "running")

    await running(trade, look(), 0.1)
    job = await reached(trade, id, "waiting")
    assert job.attempts == 0 and not trade.runner.held


async def test_a_lost_job_is_left_to_its_owner(trade: Plain) -> None:
    id = add(trade, "wait")

    async def look() -> None:
        await when(lambda: id in trade.stops)
        with trade.database.begin() as connection:
            connection.execute(sa.update(schema.jobs).values(owner="other"))
        await when(lambda: not trade.runner.held)

    await running(trade, look())
    job = await reached(trade, id, "running")
    assert job.owner == "other" and trade.begun == [id]


async def test_an_end_is_told_when_the_database_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "POLL", 0.05)
    trade = Plain(open_database(None, tmp_path, wait=0.1))
    id = add(trade, "wait")
    locked = sqlite3.connect(tmp_path / "studio.db", isolation_level=None)

    async def look() -> None:
        await when(lambda: id in trade.stops)
        locked.execute("BEGIN IMMEDIATE")
        await trade.runner.stop(id)
        await when(lambda: id in trade.runner.untold)
        assert trade.runner.untold[id].state == "stopped"
        locked.execute("ROLLBACK")
        await reached(trade, id, "stopped")

    await running(trade, look())
    assert not trade.runner.untold
    locked.close()
    trade.database.close()


@pytest.mark.parametrize("counts", [True, False])
async def test_what_a_dead_studio_held_is_taken_up(trade: Plain, counts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plain, "death_counts", counts)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        dead = f"{owner.machine()}:{process.pid}:x"
    alive, elsewhere = f"{owner.machine()}:{os.getpid()}:x", f"elsewhere:{process.pid}:x"
    held = [add(trade, "make") for _ in range(3)]
    for one in (dead, alive, elsewhere):
        assert jobs.claim(trade.database, ["plain"], one, 60.0) is not None

    async def look() -> None:
        assert (await reached(trade, held[0], "done")).attempts == (2 if counts else 1)

    await running(trade, look())
    assert trade.begun == held[:1], "the others are still held"
