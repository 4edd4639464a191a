"""The judge at work: runs for those who try, submissions as jobs that survive the studio.

A submission is written down with its job before anything is judged. Where this process has a hand free the job is its
own from the first moment; otherwise it waits, and whoever has a hand free takes it: this process, or another studio on
the same database, on this machine or another. The verdict and the end of the job are one transaction, so that a studio
that is killed loses no submission, and none gets two verdicts.
"""

from __future__ import annotations

import asyncio
import contextlib
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
from bitwright.studio.shell.runner import LEASE, End, Held, Runner, Trade
from bitwright.studio.store import jobs
from bitwright.studio.store.database import Database
from bitwright.studio.store.jobs import Job

LOOK = 0.2
"""Seconds between looks for the verdict of a submission that somebody else judges."""
HANDS = 8
"""Submissions that one process judges, or has waiting for its zygotes, at a time."""
CALLS = 32
"""Calls of the judge under way at a time; more wait for their turn."""
AGAIN = 5.0
"""Seconds after which what could not be judged is begun once more, here or on another machine."""

Event = dict[str, Any]
T = TypeVar("T")


class Judging(Trade):
    """The judge of this process, and the submissions that it judges."""

    kind = KIND

    def __init__(self, config: Config, database: Database, shelf: Callable[[], Shelf]) -> None:
        """Nothing is started yet; `shelf` gives the problems."""
        self.config, self.database, self._shelf = config, database, shelf
        self.runner = Runner(database, self)
        self._judge: Judge | None = None
        self._opening = asyncio.Lock()
        self._calls = CapacityLimiter(CALLS)
        self._told: dict[int, asyncio.Queue[Event | None]] = {}
        """What is told of submissions to those who sent them, by the number of their job; None is the end."""

    # --- beginning and end

    async def start(self) -> None:
        """Judge what a studio before this one left, and what others leave; returns at once."""
        await self.runner.start()

    async def warm(self) -> None:
        """Have the judge ready for plain and NumPy programs; quiet where there is none."""
        with contextlib.suppress(BitwrightError, pool.Unavailable, pool.Busy):
            judge = await self.open()
            for needs in ("plain", "numpy"):
                await self._call(partial(judge.pool.warm, needs))

    async def close(self) -> None:
        """Stop judging: what has no verdict yet waits for the next studio."""
        await self.runner.close()
        await self.runner.release()
        judge, self._judge = self._judge, None
        for told in self._told.values():
            told.put_nowait(None)
        self._told.clear()
        if judge is not None:
            await to_thread.run_sync(judge.pool.close)

    async def open(self) -> Judge:
        """The judge. ResourceError says why programs cannot be run here, and what helps."""
        async with self._opening:
            if self.runner.closing:
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
        owner = self.runner.owner if len(self.runner.held) < HANDS else None

        def keep() -> tuple[int, Job | None]:
            id, job = submissions.submit(self.database, learner, problem.slug, code, when, owner, LEASE)
            return id, jobs.get(self.database, job) if owner else None

        id, job = await to_thread.run_sync(keep)
        told: asyncio.Queue[Event | None] | None = None
        if job is not None:
            told = self._told[job.id] = asyncio.Queue()
            self.runner.begin(job)
        else:
            self.runner.wake()
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
            if self.runner.closing:
                raise ResourceError("the studio is closing", where="judge", fix="It is judged when the studio is back")
            looks += 1
            await asyncio.sleep(LOOK)
            if looks % 25 == 0:
                yield None

    # --- what the runner asks

    async def has_room(self) -> bool:
        """Whether there is a hand free, and a judge."""
        return len(self.runner.held) < HANDS and len(self.runner.held) < (await self.open()).pool.size

    async def work(self, held: Held) -> End:
        """Judge one submission; its verdict and the end of its job are one transaction."""
        job, owner = held.job, self.runner.owner
        id, day = job.payload["submission"], date.fromisoformat(job.payload["day"])
        submission = await to_thread.run_sync(submissions.get, self.database, id)
        if submission is None:
            return End("done", partial(jobs.finish, self.database, job.id, owner))
        result, rank = await self._verdict(await self.open(), submission, self._told.get(job.id))
        return End("done", partial(submissions.judged, self.database, id, job.id, owner, result.json(), day, rank))

    def again(self, error: Exception) -> float | None:
        """Nothing was judged: it waits for another try, or for another machine, and is IE when its tries are spent."""
        return AGAIN if isinstance(error, BitwrightError | pool.Unavailable) else None

    async def ended(self, number: int) -> None:
        """Nothing more is told of a submission whose verdict is kept."""
        told = None if number in self.runner.untold else self._told.pop(number, None)
        if told is not None:
            told.put_nowait(None)

    async def rest(self) -> None:
        """Settle what was given up."""
        await to_thread.run_sync(submissions.settle, self.database)

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
