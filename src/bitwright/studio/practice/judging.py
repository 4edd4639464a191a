"""The judge at work: runs for those who try, submissions as jobs that survive the studio.

A submission is written down with its job before anything is judged. Where this process has a hand free the job is its
own from the first moment; otherwise it waits, and whoever has a hand free takes it: this process, or another studio on
the same database, on this machine or another. The verdict and the end of the job are one transaction, so that a studio
that is killed loses no submission, and none gets two verdicts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import traceback
from collections.abc import AsyncIterator, Callable
from datetime import date, datetime
from functools import partial
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

from bitwright.errors import BitwrightError, InputError, ResourceError
from bitwright.judge import pool, tiers
from bitwright.judge.cases import Test
from bitwright.judge.judge import Judge
from bitwright.judge.pool import Busy
from bitwright.judge.problem import Problem, ProblemError, Shelf
from bitwright.judge.verdict import Result, Verdict
from bitwright.studio.practice import ranking, submissions
from bitwright.studio.practice.submissions import KIND, Submission
from bitwright.studio.practice.text import code_of, plain
from bitwright.studio.shell.config import Config
from bitwright.studio.store import jobs
from bitwright.studio.store.database import Database
from bitwright.studio.workbench.runs import is_alive, machine

LEASE = 12.0
"""Seconds after which a submission whose studio was killed is judged by another."""
RENEW = 3.0
"""Seconds between renewals."""
POLL = 1.0
"""Seconds between looks for submissions that this process was not told of."""
LOOK = 0.2
"""Seconds between looks for the verdict of a submission that somebody else judges."""
HANDS = 8
"""Submissions that one process judges, or has waiting for its zygotes, at a time."""
CALLS = 32
"""Calls of the judge under way at a time; more wait for their turn."""
PATIENCE = 60.0
"""Seconds that a verdict is kept while the database cannot take it."""

Event = dict[str, Any]
T = TypeVar("T")


class Judging:
    """The judge of this process, and the submissions that it judges."""

    def __init__(self, config: Config, database: Database, shelf: Callable[[], Shelf]) -> None:
        """Nothing is started yet; `shelf` gives the problems."""
        self.config, self.database, self._shelf = config, database, shelf
        self.owner = f"{machine()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._judge: Judge | None = None
        self._opening = asyncio.Lock()
        self._calls = CapacityLimiter(CALLS)
        self._hand: dict[int, asyncio.Task[None]] = {}
        """Submissions being judged here, by the number of their job."""
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False

    # --- beginning and end

    async def start(self) -> None:
        """Judge what a studio before this one left, and what others leave; returns at once."""
        self._closing = False
        with contextlib.suppress(BitwrightError):
            await to_thread.run_sync(self._inherit)
        self._tasks = [asyncio.create_task(self._loop()), asyncio.create_task(self._beat())]

    async def warm(self) -> None:
        """Have the judge ready for plain and NumPy programs; quiet where there is none."""
        with contextlib.suppress(BitwrightError, pool.Unavailable, pool.Busy):
            judge = await self.open()
            for needs in ("plain", "numpy"):
                await self._call(partial(judge.pool.warm, needs))

    async def close(self) -> None:
        """Stop judging: what has no verdict yet waits for the next studio."""
        self._closing = True
        judge, self._judge = self._judge, None
        for task in (*self._tasks, *self._hand.values()):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._hand.values(), return_exceptions=True)
        for job in list(self._hand):
            with contextlib.suppress(BitwrightError):
                await to_thread.run_sync(jobs.release, self.database, job, self.owner)
        self._hand.clear()
        if judge is not None:
            await to_thread.run_sync(judge.pool.close)

    async def open(self) -> Judge:
        """The judge. ResourceError says why programs cannot be run here, and what helps."""
        async with self._opening:
            if self._closing:
                raise ResourceError("the studio is closing", where="judge", fix="Start the studio again")
            if self._judge is None:
                tier = await self.tier()
                if not tier.name:
                    what = f"programs cannot be run safely here: {tier.reason}"
                    raise ResourceError(what, where="judge", fix=tier.fix)
                opened = await self._call(tiers.open_pool)
                self._judge = Judge(opened, self.config.data / "problems")
            return self._judge

    async def tier(self) -> tiers.Tier:
        """Which walls this machine has."""
        return await to_thread.run_sync(tiers.probe)

    async def _call(self, work: Callable[[], T]) -> T:
        """Something that blocks for as long as programs run, in a thread."""
        return await to_thread.run_sync(work, limiter=self._calls, abandon_on_cancel=True)

    async def ask(self, work: Callable[[Judge], T]) -> T:
        """Something of the judge. ResourceError where it cannot be had now, InputError where a problem is faulty."""
        judge = await self.open()
        try:
            return await self._call(lambda: work(judge))
        except Busy as error:
            raise ResourceError(str(error), where="judge", fix="Try again in a moment") from error
        except pool.Unavailable as error:
            raise ResourceError(str(error), where="judge", fix="See bitwright doctor") from error
        except pool.Broken as error:
            raise ResourceError(f"the judge itself failed: {error}", where="judge", fix="Try again") from error
        except ProblemError as error:
            raise InputError(str(error), where="problem", fix="Report it, or correct the problem's folder") from error

    # --- what pages ask

    async def run(self, problem: Problem, code: str, own: list[Test], learner: int) -> Result:
        """The samples and own tests; never an attempt."""
        return await self.ask(lambda judge: judge.run(problem, code_of(code), own, learner))

    async def submit(
        self, learner: int, problem: Problem, code: str, when: datetime
    ) -> tuple[int, AsyncIterator[Event | None]]:
        """Keep a submission and have it judged: its number, and the events `case` and at last `result` as they come,
        None where nothing came for a while. It is judged to its end whether or not anybody listens.
        """
        await self.open()
        mine = len(self._hand) < HANDS
        keep = partial(
            submissions.submit, self.database, learner, problem.slug, code, when, self.owner if mine else None, LEASE
        )
        id, job = await to_thread.run_sync(keep)
        told: asyncio.Queue[Event | None] | None = None
        if mine:
            told = asyncio.Queue()
            self._begin(job, id, when.date(), told)
        else:
            self._wake.set()
        return id, self._events(id, told)

    async def _events(self, id: int, told: asyncio.Queue[Event | None] | None) -> AsyncIterator[Event | None]:
        while told is not None and (event := await told.get()) is not None:
            yield event
        looks = 0
        while True:
            found = await to_thread.run_sync(submissions.get, self.database, id)
            if found is None:
                raise InputError("is gone", where=f"submission {id}", fix="Reload the page")
            if found.verdict is not None and found.result is not None:
                yield {"event": "result", "id": id, **found.result}
                return
            if self._closing:
                raise ResourceError("the studio is closing", where="judge", fix="It is judged when the studio is back")
            looks += 1
            await asyncio.sleep(LOOK)
            if looks % 25 == 0:
                yield None

    # --- submissions

    def _inherit(self) -> None:
        """Give back the submissions of studios that died on this machine; others wait for their lease."""
        for job in jobs.list(self.database, KIND, states=("running",)):
            home, _, rest = (job.owner or "").partition(":")
            pid = rest.partition(":")[0]
            if home == machine() and pid.isdecimal() and not is_alive(int(pid)):
                died = {"text": "the studio that judged it died"}
                jobs.fail(self.database, job.id, job.owner or "", died, final=False)

    async def _loop(self) -> None:
        """Take submissions that wait, as long as there is a hand free."""
        while True:
            try:
                await self.work_off()
                await to_thread.run_sync(submissions.settle, self.database)
            except BitwrightError:
                pass  # no judge here, or no database now: looked at again
            except Exception:
                traceback.print_exc()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), POLL)

    async def work_off(self) -> None:
        """Take what waits, and begin to judge it."""
        if not await to_thread.run_sync(self._waits):
            return
        judge = await self.open()
        while len(self._hand) < min(HANDS, judge.pool.size):
            job = await to_thread.run_sync(jobs.claim, self.database, [KIND], self.owner, LEASE)
            if job is None:
                return
            if job.id in self._hand:
                continue  # the lease had run out on a machine that stood still: it is held again
            self._begin(job.id, job.payload["submission"], date.fromisoformat(job.payload["day"]), None)

    def _waits(self) -> bool:
        return bool(jobs.list(self.database, KIND, states=("waiting", "running"), limit=1))

    async def _beat(self) -> None:
        """Hold what is in hand."""
        while True:
            await asyncio.sleep(RENEW)
            if self._hand:
                with contextlib.suppress(BitwrightError):
                    await to_thread.run_sync(jobs.renew_all, self.database, self.owner, LEASE)

    def _begin(self, job: int, id: int, day: date, told: asyncio.Queue[Event | None] | None) -> None:
        task = asyncio.create_task(self._work(job, id, day, told))
        self._hand[job] = task

        def ended(task: asyncio.Task[None]) -> None:
            if not self._closing:
                self._hand.pop(job, None)
            if told is not None:
                told.put_nowait(None)
            self._wake.set()

        task.add_done_callback(ended)

    async def _work(self, job: int, id: int, day: date, told: asyncio.Queue[Event | None] | None) -> None:
        """Judge one submission that is this process's, and keep its verdict."""
        try:
            submission = await to_thread.run_sync(submissions.get, self.database, id)
            if submission is None:
                await to_thread.run_sync(jobs.finish, self.database, job, self.owner)
                return
            judge = await self.open()
            result, rank = await self._verdict(judge, submission, told)
        except (BitwrightError, pool.Unavailable) as error:
            # Nothing was judged: it waits for another try, or for another machine, and is IE when its tries are spent.
            if not self._closing:
                with contextlib.suppress(BitwrightError):
                    fail = partial(jobs.fail, final=False, delay=5.0)
                    await to_thread.run_sync(fail, self.database, job, self.owner, {"text": str(error)})
            return
        await self._keep(job, id, day, result, rank)

    async def _keep(self, job: int, id: int, day: date, result: Result, rank: dict[str, float] | None) -> None:
        """Write a verdict down, for a while also against a database that does not answer."""
        write = partial(submissions.judged, self.database, id, job, self.owner, result.json(), day, rank)
        until = asyncio.get_running_loop().time() + PATIENCE
        while True:
            try:
                await to_thread.run_sync(write)
                return
            except BitwrightError:
                if asyncio.get_running_loop().time() > until:
                    raise
                await asyncio.sleep(1)

    async def _verdict(
        self, judge: Judge, submission: Submission, told: asyncio.Queue[Event | None] | None
    ) -> tuple[Result, dict[str, float] | None]:
        """What the judge says; once more where it failed itself, which a learner never pays for."""
        loop = asyncio.get_running_loop()

        def tell(case: Any, total: int) -> None:
            if told is not None:
                event = {"event": "case", "total": total, **plain(case.json())}
                with contextlib.suppress(RuntimeError):  # the studio has closed meanwhile
                    loop.call_soon_threadsafe(told.put_nowait, event)

        def judged() -> tuple[Result, dict[str, float] | None]:
            result = self._ours(judge, "no verdict")
            for hear in (tell, None):
                try:
                    problem = self._shelf().problem(submission.problem)
                    result = judge.submit(problem, submission.code, submission.learner, hear)
                except (ProblemError, pool.Broken) as error:
                    result = self._ours(judge, str(error))
                except (pool.Unavailable, Busy):
                    raise
                except Exception as error:
                    traceback.print_exc()
                    result = self._ours(judge, f"{type(error).__name__}, see the terminal")
                if result.verdict is not Verdict.IE:
                    break
            rank = ranking.measure(judge, problem, submission.code) if result.verdict is Verdict.AC else None
            return result, rank

        while True:
            try:
                return await self._call(judged)
            except Busy:
                await asyncio.sleep(LOOK)

    def _ours(self, judge: Judge, why: str) -> Result:
        """A verdict on ourselves."""
        sentence = "The judge itself failed; this is not counted"
        return Result(Verdict.IE, sentence, [], 0, 0.0, 0, judge.pool.tier, why)
