"""The leased runner: jobs of one kind, worked on by this process, each by one owner at a time.

A job that is held is renewed until it has ended. What a studio held that died on this machine is taken up at the next
start, what one held elsewhere when its lease has run out. How a job ended is told to the database at once or, where it
does not answer, as soon as it does; until then no other job is begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from anyio import to_thread

from bitwright.errors import BitwrightError, Interrupted
from bitwright.studio.shell.owner import has_died, new_owner
from bitwright.studio.store import jobs
from bitwright.studio.store.database import Database
from bitwright.studio.store.jobs import Job, State

LEASE = 12.0
"""Seconds after which a job whose studio was killed is taken up by another."""
RENEW = 3.0
"""Seconds between renewals."""
POLL = 1.0
"""Seconds between looks for jobs that this process was not told of."""
GOODBYE = 1.0
"""Seconds that closing waits for a look under way, so that nothing is claimed and then left."""


@dataclass(eq=False)
class Held:
    """A job that this process works on."""

    job: Job
    stopping: bool = False
    """Somebody asked it to stop."""
    lost: bool = False
    """The lease is somebody else's."""
    over: bool = False
    """Its work has ended, and the database is being told."""
    progress: Callable[[], Any] | None = None
    """How far it is, as plain JSON, kept with the job now and then."""


@dataclass(frozen=True)
class End:
    """How work on a job ended: its state from now on, and `tell`, which tells the database."""

    state: State
    tell: Callable[[], bool]
    result: Any = None
    error: Any = None
    moment: datetime = field(default_factory=lambda: datetime.now(UTC))


class Trade:
    """What is done with the jobs of one kind. What is written here suits work that nobody stops."""

    kind: str
    death_counts = True
    """Whether an attempt counts whose studio was killed: the job itself may have done it."""

    async def has_room(self) -> bool:
        """Whether one more job can be begun. BitwrightError where none can, for now."""
        raise NotImplementedError

    async def work(self, held: Held) -> End:
        """Do a job. What it raises is its failure; Interrupted where it was stopped."""
        raise NotImplementedError

    def again(self, error: Exception) -> float | None:
        """Seconds after which a job that failed so may be begun once more; None where that would not help."""
        return None

    async def interrupt(self, held: Held) -> None:
        """Have a job that is being worked on raise Interrupted."""

    async def ended(self, number: int) -> None:
        """A job has ended, or the database was told so at last."""

    async def rest(self) -> None:
        """Called about once a second."""


class Runner:
    """The jobs of `trade` that this process works on."""

    def __init__(self, database: Database, trade: Trade) -> None:
        """Nothing is begun yet."""
        self.database, self._trade = database, trade
        self.owner = new_owner()
        self.held: dict[int, Held] = {}
        self.untold: dict[int, End] = {}
        """How jobs ended while the database could not be told."""
        self.closing = False
        self._wake = asyncio.Event()
        self._working: set[asyncio.Task[None]] = set()
        self._always: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to work, and take up what a studio before this one left."""
        self.closing = False
        with contextlib.suppress(BitwrightError):
            await to_thread.run_sync(self._inherit)
        if not self._always:
            self._always = [asyncio.create_task(self._loop()), asyncio.create_task(self._beat())]

    async def close(self, patience: float = 0.0) -> None:
        """Begin nothing more, and interrupt what is under way. What takes longer than `patience` seconds to end is left
        where it is: `release` gives it back.
        """
        self.closing = True
        self._wake.set()
        for held in tuple(self.held.values()):
            await self._trade.interrupt(held)
        if self._always:
            await asyncio.wait(self._always[:1], timeout=GOODBYE)
        if self._working:
            await asyncio.wait(self._working, timeout=patience)
        tasks = (*self._always, *self._working)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._always = []

    async def release(self) -> None:
        """Give back what did not end before this runner was closed, as if it had not been claimed."""
        for number in tuple(self.held):
            with contextlib.suppress(BitwrightError):
                await to_thread.run_sync(jobs.release, self.database, number, self.owner)
        self.held.clear()

    def wake(self) -> None:
        """Look for jobs now."""
        self._wake.set()

    def begin(self, job: Job) -> None:
        """Work on a job that is this process's already."""
        held = self.held[job.id] = Held(job)
        task = asyncio.create_task(self._work(held))
        self._working.add(task)
        task.add_done_callback(partial(self._done, held))

    async def stop(self, number: int) -> None:
        """Have a job stop where it is held here; the database says so already."""
        held = self.held.get(number)
        if held is not None and not held.over:
            held.stopping = True
            await self._trade.interrupt(held)

    async def flush(self) -> None:
        """Tell the database how jobs ended while it did not answer. Raises what it raises."""
        for number, end in tuple(self.untold.items()):
            await to_thread.run_sync(end.tell)
            self.untold.pop(number, None)
            await self._trade.ended(number)

    # --- jobs

    def _inherit(self) -> None:
        """Take up what studios held that died on this machine; what is held elsewhere waits for its lease."""
        for job in jobs.list(self.database, self._trade.kind, states=("running", "stopping")):
            owner = job.owner or ""
            if not has_died(owner):
                continue
            if self._trade.death_counts:
                jobs.fail(self.database, job.id, owner, {"text": "the studio that worked on it died"}, final=False)
            else:
                jobs.release(self.database, job.id, owner)

    async def _loop(self) -> None:
        while not self.closing:
            self._wake.clear()
            try:
                await self.flush()
                await self._take()
                await self._trade.rest()
            except BitwrightError:
                pass  # nothing to work with, or no database now: looked at again
            except Exception:
                traceback.print_exc()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), POLL)

    async def _take(self) -> None:
        """Begin what waits, as long as there is room."""
        waits = partial(jobs.list, self.database, self._trade.kind, states=("waiting", "running"), limit=1)
        if not await to_thread.run_sync(waits):
            return
        while not self.closing and await self._trade.has_room():
            claim = partial(jobs.claim, self.database, (self._trade.kind,), self.owner, LEASE)
            job = await to_thread.run_sync(claim)
            if job is None:
                return
            held = self.held.get(job.id)
            if held is None or held.over:  # else its lease had run out on a machine that stood still: it is held again
                self.begin(job)

    async def _beat(self) -> None:
        """Renew what is held, keep its progress, and see whether somebody else asked to stop."""
        while True:
            await asyncio.sleep(RENEW)
            holding = tuple(held for held in self.held.values() if not held.over)
            with contextlib.suppress(BitwrightError):
                if holding:
                    await self._renew(holding)
            for held in holding:
                if (held.lost or held.stopping) and not held.over:
                    await self._trade.interrupt(held)

    async def _renew(self, holding: tuple[Held, ...]) -> None:
        states = await to_thread.run_sync(jobs.renew, self.database, self.owner, LEASE)
        for held in holding:
            number = held.job.id
            state = states.get(number)
            held.lost = state is None
            held.stopping = held.stopping or state == "stopping"
            if state == "running" and held.progress is not None:
                await to_thread.run_sync(jobs.report, self.database, number, self.owner, held.progress())

    async def _work(self, held: Held) -> None:
        """One attempt at a job."""
        number = held.job.id
        try:
            end: End | None = await self._trade.work(held)
        except Exception as error:  # whatever it is, the other jobs go on
            end = self._failure(held, error)
        held.over = True
        if end is not None:
            try:
                await to_thread.run_sync(end.tell)
            except BitwrightError:
                self.untold[number] = end
        await self._trade.ended(number)

    def _done(self, held: Held, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        if not task.cancelled() and self.held.get(held.job.id) is held:  # it may be begun once more already
            del self.held[held.job.id]
        self._wake.set()

    def _failure(self, held: Held, error: Exception) -> End | None:
        """How a job ended that raised; None where it is somebody else's by now."""
        which = (self.database, held.job.id, self.owner)
        delay = self._trade.again(error)
        if held.lost:
            return None
        if isinstance(error, Interrupted) or delay is not None:
            if self.closing and not held.stopping:
                return End("waiting", partial(jobs.release, *which))
            if held.stopping or delay is None:
                return End("stopped", partial(jobs.stopped, *which))
        told = {"kind": type(error).__name__, "text": str(error), "fix": getattr(error, "fix", None)}
        if delay is not None:
            spent = held.job.limit is not None and held.job.attempts >= held.job.limit
            tell = partial(jobs.fail, *which, told, final=False, delay=delay)
            return End("failed" if spent else "waiting", tell, error=told)
        if not isinstance(error, BitwrightError):
            traceback.print_exception(error)
            text = f"an unexpected error ({error!r}). Please report it"
            told = {"kind": "Unforeseen", "text": text, "fix": None}
        return End("failed", partial(jobs.fail, *which, told), error=told)
