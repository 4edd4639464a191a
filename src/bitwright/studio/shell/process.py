"""The engine's process: started when it is needed, asked in JSON lines, and started again when it dies.

    -> {"id": 1, "call": "plan", "args": {...}}
    <- {"id": 1, "event": {...}}                      any number of them
    <- {"id": 1, "result": ...}   or   {"id": 1, "error": {"kind", "text", "what", "where", "fix", "key"}}
    -> {"stop": 1}                                    at any time: the call ends with the error Interrupted

The web process never imports torch; whatever needs the engine is asked of a worker, one call at a time, in the order
of asking.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bitwright import errors
from bitwright.errors import BitwrightError, Interrupted, ResourceError

PROGRAM = (sys.executable, "-m", "bitwright.studio.worker")
TAIL = 40
"""Lines of the worker's stderr that are kept for error messages."""
PATIENCE = 30.0
"""Seconds that a call may take to stop once it was told to; then its process is killed."""
FAREWELL = 8.0
"""Seconds that a worker may take to end once its input is closed."""


class Died(ResourceError):
    """The worker process ended in the middle of a call."""


@dataclass(eq=False)
class _Call:
    """One question under way: what came back so far waits in `told`."""

    line: dict[str, Any]
    told: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    sent: bool = False
    stopped: bool = False
    """It was told to stop."""


class Worker:
    """A worker process and the queue before it."""

    def __init__(self, program: Sequence[str] = PROGRAM, patience: float = PATIENCE) -> None:
        """Nothing is started yet. `program` gets this process's id as its last argument."""
        self._program, self._patience = tuple(program), patience
        self._waiting: deque[_Call] = deque()
        self._filled = asyncio.Event()
        self._current: _Call | None = None
        self._opening = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._rest = bytearray()
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._listening: asyncio.Task[None] | None = None
        self._serving: asyncio.Task[None] | None = None
        self._killing: asyncio.TimerHandle | None = None
        self._last = 0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start the process now, so that the first call finds it warm. ResourceError where it cannot be started."""
        self._closed = False
        await self._open()

    async def ask(self, call: str, **args: Any) -> Any:
        """The result of a call; asked once more where the worker dies over it. Raises what the call raised, or Died."""
        try:
            return await self._answer(call, args)
        except Died:
            return await self._answer(call, args)

    async def _answer(self, call: str, args: dict[str, Any]) -> Any:
        asked = self._ask(call, args)
        try:
            while True:
                message = await asked.told.get()
                if "event" not in message:
                    return _result(message)
        finally:
            self._leave(asked)

    async def stream(self, call: str, **args: Any) -> AsyncIterator[dict[str, Any]]:
        """The events of a call as they come. Raises what the call raised, or Died; leaving early stops the call."""
        asked = self._ask(call, args)
        try:
            while True:
                message = await asked.told.get()
                if "event" not in message:
                    _result(message)
                    return
                yield message["event"]
        finally:
            self._leave(asked)

    async def interrupt(self) -> None:
        """Stop the call under way, or else the next: it raises Interrupted.

        Where it does not stop in time its process is killed.
        """
        if self._current is not None:
            self._stop()
        elif self._waiting:
            self._waiting.popleft().told.put_nowait({"raised": Interrupted("stopped")})

    async def close(self) -> None:
        """End the process; calls that wait or run raise Died. It can be started again."""
        self._closed = True
        if self._serving is not None:
            self._serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._serving
            self._serving = None
        await self._end(gently=True)
        for call in (*([self._current] if self._current else []), *self._waiting):
            call.told.put_nowait({"died": "the studio is closing"})
        self._current = None
        self._waiting.clear()

    # --- the queue

    def _ask(self, call: str, args: dict[str, Any]) -> _Call:
        if self._closed:
            raise Died("the studio is closing", where="the worker process", fix="Start the studio again")
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        self._last += 1
        asked = _Call({"id": self._last, "call": call, "args": args})
        self._waiting.append(asked)
        self._filled.set()
        return asked

    def _leave(self, asked: _Call) -> None:
        """Nobody waits for this call any more: it is stopped, or never begun."""
        if asked in self._waiting:
            self._waiting.remove(asked)
        elif asked is self._current:
            self._stop()

    async def _serve(self) -> None:
        while True:
            while not self._waiting:
                self._filled.clear()
                await self._filled.wait()
            self._current = self._waiting.popleft()
            try:
                await self._run(self._current)
            except BitwrightError as error:
                self._current.told.put_nowait({"raised": error})
            except (OSError, ConnectionError) as error:
                self._current.told.put_nowait({"died": str(error)})
            self._current = None
            self._calm()

    async def _run(self, call: _Call) -> None:
        """Have the process answer one call."""
        await self._open()
        process = self._process
        assert process is not None and process.stdin is not None
        if call.stopped:
            call.told.put_nowait({"raised": Interrupted("stopped")})
            return
        call.sent = True
        try:
            process.stdin.write(json.dumps(call.line).encode() + b"\n")
            await process.stdin.drain()
        except ConnectionError:
            pass  # it died meanwhile: the end of its output says so
        while True:
            line = await self._line()
            if line is None:
                code = await process.wait()
                await self._end(gently=False)
                stopped = {"raised": Interrupted("stopped")}
                call.told.put_nowait(stopped if call.stopped else {"died": _death(code, self._tail)})
                return
            message = json.loads(line)
            if message.get("id") != call.line["id"]:
                continue
            call.told.put_nowait(message)
            if "event" not in message:
                return

    # --- the process

    async def _open(self) -> None:
        async with self._opening:
            if self.pid is None:
                # To be called off in the middle would leave pipes open that nobody knows.
                spawning = asyncio.create_task(self._spawn())
                try:
                    await asyncio.shield(spawning)
                except asyncio.CancelledError:
                    await asyncio.wait([spawning])
                    raise

    async def _spawn(self) -> None:
        await self._end(gently=False)
        self._tail.clear()
        self._rest = bytearray()
        try:
            # A session of its own: Ctrl-C in the terminal is for the studio, which then stops its workers in order.
            self._process = await asyncio.create_subprocess_exec(
                *self._program, str(os.getpid()),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            fix = "Free memory or processes, then try again"
            raise ResourceError(f"cannot be started ({error.strerror})", where="the worker", fix=fix) from error
        assert self._process.stderr is not None
        self._listening = asyncio.create_task(_listen(self._process.stderr, self._tail))

    async def _line(self) -> bytes | None:
        """The next line of the process, however long; None where it has ended."""
        assert self._process is not None and self._process.stdout is not None
        searched = 0
        while (end := self._rest.find(b"\n", searched)) < 0:
            searched = len(self._rest)
            more = await self._process.stdout.read(1 << 16)
            if not more:
                return None
            self._rest += more
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        return line

    def _stop(self) -> None:
        """Have the call under way stopped; kill its process where it does not in time."""
        call, process = self._current, self._process
        if call is None or call.stopped:
            return
        call.stopped = True
        if not call.sent or process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError, RuntimeError):
            process.stdin.write(json.dumps({"stop": call.line["id"]}).encode() + b"\n")
        self._killing = asyncio.get_running_loop().call_later(self._patience, _kill, process)

    def _calm(self) -> None:
        if self._killing is not None:
            self._killing.cancel()
            self._killing = None

    async def _end(self, gently: bool) -> None:
        """See the process out, by closing its input or by force, and leave nothing of it behind."""
        process, self._process = self._process, None
        self._calm()
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError, ConnectionError):
            process.stdin.close()
        if process.returncode is None:
            if not gently:
                _kill(process)
            draining = asyncio.create_task(_drain(process.stdout))  # a full pipe would keep it from ending
            try:
                await asyncio.wait_for(process.wait(), FAREWELL)
            except TimeoutError:
                _kill(process)
                await process.wait()
            await draining
        if self._listening is not None:
            await self._listening
            self._listening = None
        process._transport.close()  # type: ignore[attr-defined]
        await asyncio.sleep(0)  # pipes are closed on the loop's next turn


async def _listen(stream: asyncio.StreamReader, tail: deque[str]) -> None:
    """Keep the last lines of a stream; pass nothing on."""
    rest = b""
    while more := await stream.read(1 << 14):
        *lines, rest = (rest + more).split(b"\n")
        tail.extend(line.decode("utf-8", "replace")[:500] for line in lines)
        rest = rest[-500:]
    if rest:
        tail.append(rest.decode("utf-8", "replace"))


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(1 << 16):
        pass


def _death(code: int, tail: deque[str]) -> str:
    """Why a process ended, in words."""
    last = next((line.strip() for line in reversed(tail) if line.strip()), "")
    said = f"; its last words: {last[:200]}" if last else ""
    if code == -signal.SIGKILL:
        return "killed (signal 9), which the system does where memory runs out" + said
    if code < 0:
        return f"ended by {signal.Signals(-code).name}" + said
    return f"ended with exit code {code}" + said


def _result(message: dict[str, Any]) -> Any:
    """The result in a last message; raises what it tells."""
    if "raised" in message:
        raise message["raised"]
    if "died" in message:
        fix = "Try again, with a smaller job where memory is short"
        raise Died(message["died"], where="the worker process", fix=fix)
    if "error" in message:
        raise remade(message["error"])
    return message["result"]


def remade(error: dict[str, Any]) -> BitwrightError:
    """The error that a worker told, as the exception it was."""
    kind = getattr(errors, str(error.get("kind")), BitwrightError)
    if not (isinstance(kind, type) and issubclass(kind, BitwrightError)):
        kind = BitwrightError
    what = str(error.get("what", error.get("text")))
    return kind(what, where=error.get("where"), fix=error.get("fix"), key=error.get("key"))
