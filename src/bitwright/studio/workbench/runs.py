"""Runs of the workbench: jobs that quantize a model in a process of their own, told event by event.

A run is a job in the database, and a folder with its output and `events.jsonl`: one event a line, so that a page that
connects again goes on after the line it saw last. Progress is told live and kept with the job, but not logged. Rows and
notes that a resumed run tells again are logged once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import time
import traceback
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from anyio import to_thread

from bitwright.errors import BitwrightError, Interrupted
from bitwright.studio.shell.config import Config
from bitwright.studio.shell.faults import Conflict, Unavailable, Unknown
from bitwright.studio.shell.process import Died, Worker
from bitwright.studio.store import jobs
from bitwright.studio.store.database import Database
from bitwright.studio.workbench.catalogue import bundled, kind_of
from bitwright.studio.workbench.runlog import Event, Log, Progress, Told, Topic, whole_lines
from bitwright.studio.workbench.uploads import Uploads

KIND = "quantize"
ATTEMPTS = 5
"""How often a run is begun by itself before it has failed."""
LEASE = 12.0
"""Seconds after which a run whose studio was killed is taken up by the next."""
RENEW = 3.0
"""Seconds between renewals."""
POLL = 1.0
"""Seconds between looks for work that this process was not told of."""
BEAT = 15.0
"""Seconds of silence after which a stream says that it is still there."""
TICK = 0.1
"""Seconds between progress events of a run."""
SLOW_TICK = 0.5
"""Seconds between changes told to lists because of progress alone."""
IDLE = 120.0
"""Seconds without work after which the process gives its memory back."""
FINAL = ("done", "failed", "stopped")

T = TypeVar("T")


class Live:
    """The run under way."""

    def __init__(self, job: jobs.Job, log: Log) -> None:
        self.job, self.log = job, log
        self.progress = Progress()
        self.summary: Event | None = None
        self.stopping = False
        self.lost = False
        """The lease is somebody else's."""
        self.told = self.listed = self.kept = 0.0


class Ended(NamedTuple):
    """How a run ended, and how to tell the database."""

    tell: Callable[[], bool]
    state: str
    error: Event | None
    summary: Event | None
    moment: datetime


class Runs:
    """All runs, and the process that works on them one after the other."""

    def __init__(self, config: Config, database: Database, worker: Worker | None = None) -> None:
        self.config, self.database = config, database
        self.folder = config.data / "runs"
        self.uploads = Uploads(config.data / "uploads", config.max_upload)
        self.worker = worker or Worker()
        self.changes = Topic()
        self._topics: dict[int, Topic] = {}
        self._owner = f"{machine()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._live: Live | None = None
        self._stops: set[int] = set()
        """Runs that were asked to stop before their work had begun."""
        self._ended: dict[int, Ended] = {}
        """Runs that ended while the database could not be told."""
        self._wake = asyncio.Event()
        self._working: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> None:
        """Begin to work, and take up what a studio before this one left."""
        self._closing = False
        await to_thread.run_sync(self.uploads.sweep)
        with contextlib.suppress(BitwrightError):
            await self._ask(self._inherit)
        if self._working is None:
            self._working = asyncio.create_task(self._loop())

    async def close(self) -> None:
        """Stop working: a run under way keeps what is finished and goes on when the studio starts again."""
        self._closing = True
        self._wake.set()
        if self._live is not None:
            await self.worker.interrupt()
        if self._working is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._working), 10)
            self._working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._working
            self._working = None
        await self.worker.close()
        for topic in (*self._topics.values(), self.changes):
            topic.tell(None)

    # --- what pages ask

    async def add(self, model: Path, recipe: Event, name: str | None = None) -> str:
        """A new run, waiting for its turn; its id. The recipe and the path have been looked at already."""
        task = bundled(self.config, model)
        payload = {
            "name": name or default_name(model, recipe, task), "model": str(model), "kind": kind_of(model),
            "recipe": recipe, "bundled": task,
        }  # fmt: skip
        number = await self._ask(lambda: jobs.add(self.database, KIND, payload, limit=ATTEMPTS))
        self._wake.set()
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
        live = self._live
        if live is not None and live.job.id == job.id:
            live.stopping = True
            await self.worker.interrupt()
        else:
            self._stops.add(job.id)
        await self._tell_state(job.id)

    async def resume(self, id: str) -> None:
        """Let a stopped or failed run go on. Conflict for any other."""
        job = await self._job(id)
        await self._flush()
        asked = self._stops & {job.id}
        self._stops -= asked
        if not await self._ask(lambda: jobs.resume(self.database, job.id)):
            self._stops |= asked
            raise Conflict(f"is {self._state(job)}", where=f"run {id}", fix="Only a stopped or failed run can go on")
        self._wake.set()
        await self._tell_state(job.id)

    async def remove(self, id: str) -> None:
        """Forget a run and everything it wrote. Conflict while it runs."""
        job = await self._job(id)
        await self._flush()
        if not await self._ask(lambda: jobs.remove(self.database, job.id)):
            raise Conflict("is running", where=f"run {id}", fix="Stop it first")
        await to_thread.run_sync(lambda: shutil.rmtree(self.folder / str(job.id), ignore_errors=True))
        gone = {"event": "removed", "id": id}
        self.changes.tell(Told(None, gone))
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
                told = self._state_event(job)
                yield Told(None, told)
                if told["state"] in FINAL:
                    return
                if self._live is not None and self._live.job.id == number:
                    yield Told(None, {"event": "progress", **_measured(self._live.progress)})
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
        """The folder or .onnx file that a run writes."""
        return self.folder / str(job.id) / ("out.onnx" if job.payload["kind"] == "network" else "out")

    async def made(self) -> list[tuple[str, Path]]:
        """Names and outputs of finished runs."""
        found = await self._ask(lambda: jobs.list(self.database, KIND, states=("done",)))
        return [(job.payload["name"], self.out(job)) for job in found]

    def certificate(self, job: jobs.Job) -> Path:
        """The certificate of a run; Conflict where it has none yet."""
        path = self._certificate(job)
        if not path.exists():
            state = self._state(job)
            raise Conflict(f"is {state}, it has no certificate", where=f"run {job.id}", fix="Wait until it is done")
        return path

    def _certificate(self, job: jobs.Job) -> Path:
        out = self.out(job)
        return out / "certificate.json" if out.suffix != ".onnx" else out.with_name("out.certificate.json")

    # --- tables

    def _table(self, job: jobs.Job) -> Event:
        payload, progress = job.payload, job.progress
        live = self._live
        if live is not None and live.job.id == job.id:
            progress = live.progress.json()
        state, ended = self._state(job), self._ended.get(job.id)
        if state == "done":
            progress = {"phase": "done", "share": 1.0, "label": "", "seconds_left": 0.0}
        waiting = {"phase": "waiting", "share": 0.0, "label": "", "seconds_left": None}
        return {
            "id": str(job.id), "name": payload["name"], "model": payload["model"], "kind": payload["kind"],
            "recipe": payload["recipe"], "state": state, "created": _iso(job.added), "started": _iso(job.started),
            "finished": _iso(ended.moment if ended else job.ended), "progress": progress or waiting,
            "summary": (ended.summary if ended else job.result) if state == "done" else None,
            "error": self._error(job),
        }  # fmt: skip

    def _state(self, job: jobs.Job) -> str:
        ended, live = self._ended.get(job.id), self._live
        if live is not None and live.job.id == job.id and live.stopping and job.state == "running":
            return "stopping"  # the job was read before it was asked to stop
        return ended.state if ended else job.state

    def _error(self, job: jobs.Job) -> str | None:
        ended = self._ended.get(job.id)
        error = ended.error if ended else job.error
        if not error or self._state(job) != "failed":
            return None
        return str(error["text"]) if "kind" in error else f"{error['text']}. {error.get('fix') or ''}".strip()

    def _state_event(self, job: jobs.Job) -> Event:
        table = self._table(job)
        return {
            "event": "state", "state": table["state"], "error": table["error"], "summary": table["summary"]
        }  # fmt: skip

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

    def _inherit(self) -> None:
        """Give back the runs of studios that died on this machine; those of other machines wait for their lease."""
        for job in jobs.list(self.database, KIND, states=("running", "stopping")):
            home, _, rest = (job.owner or "").partition(":")
            pid = rest.partition(":")[0]
            if home == machine() and pid.isdecimal() and not is_alive(int(pid)):
                jobs.release(self.database, job.id, job.owner or "")

    async def _ask(self, work: Callable[[], T]) -> T:
        """Something of the database, in a thread. Unavailable for whatever it raises."""
        try:
            return await to_thread.run_sync(work)
        except BitwrightError as error:
            raise Unavailable(error.what, where=error.where, fix=error.fix) from error

    async def _job(self, id: str) -> jobs.Job:
        number = int(id) if id.isascii() and id.isdecimal() and len(id) < 10 else 0
        job = await self._ask(lambda: jobs.get(self.database, number)) if number else None
        if job is None or job.kind != KIND:
            raise Unknown(f"no run is called {id[:40]!r}", where="runs", fix="See the list of runs")
        return job

    async def _tell_state(self, number: int) -> None:
        """Tell streams and lists the state that a run is in now."""
        job = await self._ask(lambda: jobs.get(self.database, number))
        if job is None:
            return
        topic = self._topics.get(number)
        if topic is not None:
            topic.tell(Told(None, self._state_event(job)))
        self.changes.tell(Told(None, {"event": "run", "run": self._table(job)}))

    async def _end(
        self, number: int, state: str, error: Event | None, tell: Callable[[], bool], summary: Event | None = None
    ) -> None:
        """A run ended: tell the database, now or as soon as it listens, and everybody else."""
        try:
            await self._ask(tell)
        except BitwrightError:
            self._ended[number] = Ended(tell, state, error, summary, datetime.now(UTC))
        with contextlib.suppress(BitwrightError):
            await self._tell_state(number)

    async def _flush(self) -> bool:
        """Tell the database of runs that ended; False where it does not listen."""
        for number, ended in [*self._ended.items()]:
            try:
                await self._ask(ended.tell)
            except BitwrightError:
                return False
            self._ended.pop(number, None)
        return True

    # --- work

    async def _loop(self) -> None:
        idle = time.monotonic()
        while not self._closing:
            job = None
            with contextlib.suppress(BitwrightError):
                if await self._flush():
                    job = await self._ask(lambda: jobs.claim(self.database, (KIND,), self._owner, LEASE))
            if job is not None:
                await self._work(job)
                idle = time.monotonic()
                continue
            if self.worker.pid is not None and time.monotonic() - idle > IDLE:
                await self.worker.close()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), POLL)

    async def _work(self, job: jobs.Job) -> None:
        """One attempt at a run."""
        number, db, owner = job.id, self.database, self._owner
        try:
            log = await to_thread.run_sync(Log, self._log_path(number))
        except BitwrightError as error:
            told = _told(error)
            await self._end(number, "failed", told, lambda: jobs.fail(db, number, owner, told))
            return
        live = self._live = Live(job, log)
        live.stopping = number in self._stops
        keeping = asyncio.create_task(self._keep(live))
        try:
            with contextlib.suppress(BitwrightError):
                await self._tell_state(number)
            await self._attempt(live)
        except (Interrupted, Died) as error:
            self._live = None
            told = _told(error)
            if live.lost:
                return
            if self._closing and not live.stopping:
                with contextlib.suppress(BitwrightError):
                    await self._ask(lambda: jobs.release(db, number, owner))
            elif live.stopping or isinstance(error, Interrupted):
                await self._end(number, "stopped", None, lambda: jobs.stopped(db, number, owner))
            else:
                again = job.attempts < (job.limit or ATTEMPTS)
                state = "waiting" if again else "failed"
                await self._end(number, state, told, lambda: jobs.fail(db, number, owner, told, final=False))
        except BitwrightError as error:
            self._live = None
            told = _told(error)
            if not live.lost:
                await self._end(number, "failed", told, lambda: jobs.fail(db, number, owner, told))
        except Exception as error:  # whatever it is, the other runs go on
            traceback.print_exc()
            self._live = None
            told = {"kind": "Unforeseen", "text": f"an error that nobody foresaw ({error!r}). Please report it"}
            await self._end(number, "failed", told, lambda: jobs.fail(db, number, owner, told))
        else:
            self._live = None
            summary = live.summary
            await self._end(number, "done", None, lambda: jobs.finish(db, number, owner, summary), summary)
        finally:
            self._live = None
            self._stops.discard(number)
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping
            log.close()

    async def _attempt(self, live: Live) -> None:
        payload = live.job.payload
        args = {
            "model": payload["model"], "out": str(self.out(live.job)), "recipe": payload["recipe"],
            "bundled": payload["bundled"], "samples": str(self.config.data / "samples"),
        }  # fmt: skip
        await self.worker.start()
        if live.stopping or self._closing:
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
                topic.tell(Told(None, {**event, **_measured(live.progress)}))
        if now - live.listed >= SLOW_TICK or event["event"] == "started":
            live.listed = now
            self.changes.tell(Told(None, {"event": "run", "run": self._table(live.job)}))

    async def _keep(self, live: Live) -> None:
        """Renew the lease, keep the progress, and see whether somebody else asked to stop."""
        number = live.job.id
        while True:
            await asyncio.sleep(RENEW)
            with contextlib.suppress(BitwrightError):
                state = await self._ask(lambda: jobs.renew(self.database, number, self._owner, LEASE))
                if state == "running":
                    await self._ask(lambda: jobs.report(self.database, number, self._owner, live.progress.json()))
                live.lost = state is None
                live.stopping = live.stopping or state == "stopping"
            if live.lost or live.stopping:
                await self.worker.interrupt()


def machine() -> str:
    """This machine since it was started, as far as process ids are its own: containers of one machine differ."""
    facts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with contextlib.suppress(OSError):
            facts.append(os.readlink(path) if path.endswith("pid") else Path(path).read_text())
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def default_name(model: Path, recipe: Event, task: str | None) -> str:
    """What a run is called where nobody gave it a name: `demo-model int4 rtn`."""
    layer = recipe.get("layer", {})
    own = {"language": "demo-model", "vision": "digits", "speech": "words"}
    words = [own[task] if task else model.stem if model.suffix == ".onnx" else model.name]
    group = layer.get("group")
    words += [layer.get("format", "int8" if model.suffix == ".onnx" else "int4")]
    words += [f"g{group}" if isinstance(group, int) else group] if group else []
    return " ".join([*words, layer.get("method", "descent")])


def _measured(progress: Progress) -> Event:
    """What a page needs besides the engine's own words."""
    found = progress.json()
    return {
        "phase": found["phase"], "label": found["label"], "share": found["share"], "seconds_left": found["seconds_left"]
    }  # fmt: skip


def _told(error: BitwrightError) -> Event:
    return {"kind": type(error).__name__, "text": str(error), "fix": error.fix}


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
