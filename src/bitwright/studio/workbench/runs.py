"""Runs of the workbench: jobs that quantize a model in a process of their own, told event by event.

A run is a job in the database, and a folder with its output and `events.jsonl`: one event per line, so that a page that
connects again goes on after the line it saw last. Progress is told live and kept with the job, but not logged. Rows and
notes that a resumed run tells again are logged once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from anyio import to_thread

from bitwright.errors import BitwrightError, Interrupted
from bitwright.files.containers import registry as containers
from bitwright.models import Kind, kind_of, kinds
from bitwright.recipe import Layer, Recipe
from bitwright.studio.shell.config import Config
from bitwright.studio.shell.faults import Conflict, Unavailable, Unknown
from bitwright.studio.shell.process import Died, Worker
from bitwright.studio.shell.runner import End, Held, Runner, Trade
from bitwright.studio.store import jobs
from bitwright.studio.store.database import Database
from bitwright.studio.workbench.catalogue import bundled
from bitwright.studio.workbench.log import Log, whole_lines
from bitwright.studio.workbench.progress import Progress
from bitwright.studio.workbench.table import change, table
from bitwright.studio.workbench.topic import Event, Told, Topic
from bitwright.studio.workbench.uploads import Uploads
from bitwright.words import megabytes

KIND = "quantize"
ATTEMPTS = 5
"""How often a run is begun by itself before it has failed."""
BEAT = 15.0
"""Seconds of silence after which a stream says that it is still there."""
TICK = 0.1
"""Seconds between progress events of a run."""
SLOW_TICK = 0.5
"""Seconds between changes told to lists because of progress alone."""
IDLE = 120.0
"""Seconds without work after which the process gives its memory back."""
PATIENCE = 10.0
"""Seconds that a run gets to stop when the studio closes."""
FINAL = ("done", "failed", "stopped")

T = TypeVar("T")


class Live:
    """The run under way."""

    def __init__(self, held: Held, log: Log) -> None:
        self.held, self.job, self.log = held, held.job, log
        self.progress = Progress()
        held.progress = self.progress.json
        self.summary: Event | None = None
        self.told = self.listed = 0.0


class Runs(Trade):
    """All runs, and the process that works on them one after the other."""

    kind = KIND
    death_counts = False

    def __init__(self, config: Config, database: Database, worker: Worker | None = None) -> None:
        self.config, self.database = config, database
        self.folder = config.data / "runs"
        self.uploads = Uploads(config.data / "uploads", config.max_upload)
        self.worker = worker or Worker()
        self.runner = Runner(database, self)
        self.changes = Topic()
        self._topics: dict[int, Topic] = {}
        self._live: Live | None = None
        self._worked = time.monotonic()
        """When work ended last."""

    async def start(self) -> None:
        """Begin to work, and take up what a studio before this one left."""
        await to_thread.run_sync(self.uploads.sweep)
        await self.runner.start()

    async def close(self) -> None:
        """Stop working: a run under way keeps what is finished and goes on when the studio starts again."""
        await self.runner.close(PATIENCE)
        await self.worker.close()
        await self.runner.release()
        for topic in (*self._topics.values(), self.changes):
            topic.tell(None)

    # --- what pages ask

    async def add(self, model: Path, recipe: Event, name: str | None = None) -> str:
        """A new run, waiting for its turn; its id. The recipe and the path have been looked at already."""
        kind = kind_of(model)
        payload = {
            "name": name or default_name(model, recipe, kind), "model": str(model), "kind": kind.name,
            "recipe": recipe, "bundled": bundled(self.config, model),
        }  # fmt: skip
        number = await self._ask(lambda: jobs.add(self.database, KIND, payload, limit=ATTEMPTS))
        self.runner.wake()
        await self._tell_state(number)
        return str(number)

    async def listed(self) -> list[Event]:
        """All runs, the newest first, without rows."""
        found = await self._ask(lambda: jobs.list(self.database, KIND))
        return [self._table(job) for job in found]

    async def get(self, id: str) -> Event:
        """A run with its rows and notes. Unknown where there is none of this id."""
        job = await self._job(id)
        rows, notes, lines = await to_thread.run_sync(self._read, job.id)
        certificate = self._certificate(job).exists()
        return {**self._table(job), "rows": rows, "notes": notes, "certificate": certificate, "line": lines}

    async def job(self, id: str) -> jobs.Job:
        """The job that a run is."""
        return await self._job(id)

    async def stop(self, id: str) -> None:
        """Have a run stop; what is finished is kept. Conflict where it has ended."""
        job = await self._job(id)
        if not await self._ask(lambda: jobs.stop(self.database, job.id)):
            raise Conflict(f"is {self._state(job)} already", where=f"run {id}", fix="There is nothing to stop")
        await self.runner.stop(job.id)
        await self._tell_state(job.id)

    async def resume(self, id: str) -> None:
        """Let a stopped or failed run go on. Conflict for any other."""
        job = await self._job(id)
        await self._flush()
        if not await self._ask(lambda: jobs.resume(self.database, job.id)):
            raise Conflict(f"is {self._state(job)}", where=f"run {id}", fix="Only a stopped or failed run can go on")
        self.runner.wake()
        await self._tell_state(job.id)

    async def remove(self, id: str) -> None:
        """Forget a run and everything it wrote. Conflict while it runs."""
        job = await self._job(id)
        await self._flush()
        if not await self._ask(lambda: jobs.remove(self.database, job.id)):
            raise Conflict("is running", where=f"run {id}", fix="Stop it first")
        await to_thread.run_sync(lambda: shutil.rmtree(self.folder / str(job.id), ignore_errors=True))
        self.changes.tell(Told(None, {"event": "removed", "id": id}))
        topic = self._topics.pop(job.id, None)
        if topic is not None:
            topic.tell(None)

    async def events(self, id: str, after: int = 0) -> AsyncIterator[Told | None]:
        """What happened after line `after`, then what happens; ends when the run has. None is a sign of life."""
        number = (await self._job(id)).id
        topic = self._topics.setdefault(number, Topic())
        seen = after
        with topic.listen() as queue:
            while True:
                for line, text in await to_thread.run_sync(self._lines_after, number, seen):
                    seen = line
                    yield Told(line, json.loads(text))
                job = await self._ask(lambda: jobs.get(self.database, number))
                if job is None:
                    return
                told = change(self._table(job))
                yield Told(None, told)
                if told["state"] in FINAL:
                    return
                if self._live is not None and self._live.job.id == number:
                    yield Told(None, {"event": "progress", **self._live.progress.json()})
                while True:
                    try:
                        item = await asyncio.wait_for(queue.get(), BEAT)
                    except TimeoutError:
                        yield None
                        break  # look at the log and the state once more: another studio may be at work
                    if item is None:
                        return
                    if item.line is not None and item.line <= seen:
                        continue
                    seen = item.line or seen
                    yield item
                    if item.event["event"] == "state" and item.event["state"] in FINAL:
                        return

    async def all_changes(self) -> AsyncIterator[Told | None]:
        """Every run that changes, as a list shows it; those that have not ended come first."""
        with self.changes.listen() as queue:
            for run in await self.listed():
                if run["state"] not in FINAL:
                    yield Told(None, {"event": "run", "run": run})
            while True:
                try:
                    item = await asyncio.wait_for(queue.get(), BEAT)
                except TimeoutError:
                    yield None
                    continue
                if item is None:
                    return
                yield item

    def out(self, job: jobs.Job) -> Path:
        """The folder or file that a run writes."""
        kind, recipe = kinds.get(job.payload["kind"]), Recipe.model_validate(job.payload["recipe"])
        name = recipe.output or kind.output(recipe)
        single = containers.get(name).ending if name in containers.names() else ""  # a plugin's may be gone
        return kind.standing(self.folder / str(job.id) / f"out{kind.ending or single}")

    async def made(self) -> list[tuple[str, Path]]:
        """Names and outputs of finished runs."""
        found = await self._ask(lambda: jobs.list(self.database, KIND, states=("done",)))
        return [(job.payload["name"], self.out(job)) for job in found]

    def certificate(self, job: jobs.Job) -> Path:
        """The certificate of a run; Conflict where it has none yet."""
        path = self._certificate(job)
        if not path.exists():
            state = self._table(job)["state"]
            raise Conflict(f"is {state}, it has no certificate", where=f"run {job.id}", fix="Wait until it is done")
        return path

    def _certificate(self, job: jobs.Job) -> Path:
        return kinds.get(job.payload["kind"]).certificate(self.out(job))

    # --- tables

    def _table(self, job: jobs.Job) -> Event:
        return table(job, self.runner.held.get(job.id), self.runner.untold.get(job.id))

    def _state(self, job: jobs.Job) -> str:
        return str(self._table(job)["state"])

    def _read(self, number: int) -> tuple[list[Event], list[str], int]:
        """Rows by name in the order they were first told, notes, and the number of lines."""
        rows: dict[str, Event] = {}
        notes: dict[str, None] = {}
        lines = whole_lines(self._log_path(number))
        for line in lines:
            event = json.loads(line)
            if event["event"] == "row":
                rows[event["name"]] = {key: value for key, value in event.items() if key != "event"}
            elif event["event"] == "note":
                notes[event["text"]] = None
        return [*rows.values()], [*notes], len(lines)

    def _lines_after(self, number: int, after: int) -> list[tuple[int, bytes]]:
        lines = whole_lines(self._log_path(number))
        return [*enumerate(lines, 1)][max(0, after) :]

    def _log_path(self, number: int) -> Path:
        return self.folder / str(number) / "events.jsonl"

    # --- the database

    async def _ask(self, work: Callable[[], T]) -> T:
        """Something of the database, in a thread. Unavailable for whatever it raises."""
        try:
            return await to_thread.run_sync(work)
        except BitwrightError as error:
            raise Unavailable(error.what, where=error.where, fix=error.fix) from error

    async def _flush(self) -> None:
        """Tell the database of runs that ended, where it listens."""
        with contextlib.suppress(BitwrightError):
            await self.runner.flush()

    async def _job(self, id: str) -> jobs.Job:
        number = int(id) if id.isascii() and id.isdecimal() and len(id) < 10 else 0
        job = await self._ask(lambda: jobs.get(self.database, number)) if number else None
        if job is None or job.kind != KIND:
            raise Unknown(f"no run is called {id[:40]!r}", where="runs", fix="See the list of runs")
        return job

    async def _tell_state(self, number: int) -> jobs.Job | None:
        """Tell streams and lists the state that a run is in now; the run, where it is still there."""
        job = await self._ask(lambda: jobs.get(self.database, number))
        if job is not None:
            run = self._table(job)
            topic = self._topics.get(number)
            if topic is not None:
                topic.tell(Told(None, change(run)))
            self.changes.tell(Told(None, {"event": "run", "run": run}))
        return job

    # --- what the runner asks

    async def has_room(self) -> bool:
        """One run at a time: it takes all of the machine."""
        return not self.runner.held

    async def work(self, held: Held) -> End:
        """One attempt at a run."""
        number = held.job.id
        log = await to_thread.run_sync(Log, self._log_path(number))
        try:
            live = self._live = Live(held, log)
            with contextlib.suppress(BitwrightError):
                job = await self._tell_state(number)
                held.stopping = held.stopping or job is None or job.state == "stopping"
            await self._attempt(live)
        finally:
            self._live = None
            self._worked = time.monotonic()
            log.close()
        tell = partial(jobs.finish, self.database, number, self.runner.owner, live.summary)
        return End("done", tell, result=live.summary)

    def again(self, error: Exception) -> float | None:
        """A worker that died, perhaps for want of memory, is started again at once."""
        return 0.0 if isinstance(error, Died) else None

    async def interrupt(self, held: Held) -> None:
        """Have the engine stop."""
        await self.worker.interrupt()

    async def ended(self, number: int) -> None:
        """Tell pages."""
        with contextlib.suppress(BitwrightError):
            await self._tell_state(number)

    async def rest(self) -> None:
        """Give the worker's memory back where there was nothing to do for long."""
        if not self.runner.held and self.worker.pid is not None and time.monotonic() - self._worked > IDLE:
            await self.worker.close()

    async def _attempt(self, live: Live) -> None:
        payload = live.job.payload
        args = {
            "model": payload["model"], "out": str(self.out(live.job)), "recipe": payload["recipe"],
            "bundled": payload["bundled"], "samples": str(self.config.data / "samples"),
        }  # fmt: skip
        await self.worker.start()
        if live.held.stopping or self.runner.closing:
            raise Interrupted("stopped")
        events = self.worker.stream(KIND, **args)
        async with contextlib.aclosing(events) as told:  # type: ignore[type-var]
            async for event in told:
                self._take(live, event)

    def _take(self, live: Live, event: Event) -> None:
        """One event of the engine: logged, counted, told."""
        if event["event"] == "summary":
            live.summary = event["summary"]
            return
        live.progress.take(event)
        topic = self._topics.get(live.job.id)
        now = time.monotonic()
        if event["event"] != "progress":
            line = live.log.append(event)
            if line is not None and topic is not None:
                topic.tell(Told(line, event))
        elif now - live.told >= TICK:
            live.told = now
            if topic is not None:
                topic.tell(Told(None, {**event, **live.progress.json()}))
        if now - live.listed >= SLOW_TICK or event["event"] == "started":
            live.listed = now
            self.changes.tell(Told(None, {"event": "run", "run": self._table(live.job)}))


def default_name(model: Path, recipe: Event, kind: Kind) -> str:
    """What a run is called where nobody gave it a name: `demo-model int4 rtn`."""
    given = recipe.get("layer", {})
    layer, group = Layer.model_validate(dict(kind.layer)).overlaid(given), given.get("group")
    stem = model.name.removesuffix(model.suffix if kind.ending else "")
    words = [model.parent.name if stem == "model" else stem]
    if recipe.get("type"):
        words.append(recipe["type"])
    elif recipe.get("budget"):
        words.append(_limit(recipe["budget"]))
    else:
        words += [layer.format, *([f"g{group}" if isinstance(group, int) else group] if group else [])]
    return " ".join([*words, layer.method])


def _limit(budget: Event) -> str:
    """What a recipe's budget limits, in two words."""
    if budget.get("size"):
        return megabytes(budget["size"])
    return f"{budget['bpw']:g} bpw" if budget.get("bpw") else f"KL {budget['kl']:g}"
