"""`python -m bitwright.studio.worker PARENT`: answers calls in JSON lines until its input ends or its parent dies.

Each call is one function of a module beside this one, found by name. It returns a JSON-able value, or is a generator
that yields events (tables, or the engine's) and returns one. Only this module writes to the real standard output.
A line {"stop": id} stops a call, also one that has not begun.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from types import FrameType, GeneratorType
from typing import Any, NoReturn

from bitwright.errors import BitwrightError, Interrupted, ResourceError

CALLS = {
    "lesson": "prepare:lesson",
    "statement": "prepare:statement",
    "plan": "plan:plan",
    "quantize": "quantize:quantize",
    "check": "check:check",
    "generate": "generate:generate",
    "matrix": "matrix:matrix",
    "report": "page:page",
}
"""Call -> `module:function` beside this file."""
PR_SET_PDEATHSIG = 1
GRACE = 5.0
"""Seconds that a call may take to stop when the input ends."""
NUDGE = 0.1
"""Seconds between signals until one was noticed: one that comes just before a system call does not end that call."""
AGAIN = 10.0
"""Seconds after which a call that swallowed KeyboardInterrupt gets another."""
EXTRA = ("onnx", "onnxruntime", "PIL", "sklearn")
"""Modules that the optional extra `onnx` installs."""


class Channel:
    """Where answers go, and how a call is stopped: KeyboardInterrupt is raised in it, never within a message or an
    import.
    """

    def __init__(self, out: int) -> None:
        self.out = out
        self.number: int | None = None
        """The call under way."""
        self.stopped: set[int] = set()
        """Calls that were told to stop."""
        self._wanted: int | None = None
        self._writing = self._asked = False
        signal.signal(signal.SIGINT, self._interrupted)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if self._writing:
            self._asked = True
        elif self.number is not None and self._wanted == self.number and not importing(frame):
            self._wanted = None
            raise KeyboardInterrupt

    def send(self, message: dict[str, Any]) -> None:
        """Write one message whole."""
        data = memoryview(json.dumps(message, default=float).encode() + b"\n")
        self._writing = True
        while data:
            data = data[os.write(self.out, data) :]
        self._writing = False
        if self._asked:
            self._asked = False
            self._interrupted(signal.SIGINT, None)

    def stop(self, number: int) -> None:
        """Stop a call; returns at once, from any thread."""
        self.stopped.add(number)
        if self.number == number:
            threading.Thread(target=self._insist, args=(number,), daemon=True).start()

    def _insist(self, number: int) -> None:
        """Interrupt the main thread until the call is over."""
        main = threading.main_thread().ident
        assert main is not None
        due = time.monotonic()
        while self.number == number:
            if time.monotonic() >= due:
                self._wanted, due = number, time.monotonic() + AGAIN
            if self._wanted == number:
                signal.pthread_kill(main, signal.SIGINT)
            time.sleep(NUDGE)


def importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: an extension cut short there raises ImportError, and may never load again."""
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False


def main() -> None:
    """Serve the calls of this package."""
    from bitwright.libraries import load

    serve(CALLS, load)


def serve(calls: Mapping[str, str | Callable[..., Any]], warm: Callable[[], None] | None = None) -> NoReturn:
    """Answer `calls` until the input ends; `warm` is done first."""
    follow(int(sys.argv[1]) if len(sys.argv) > 1 else os.getppid())
    given, out = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # what a library reads, or prints, is no part of the protocol
    os.dup2(2, 1)
    channel = Channel(out)
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    warmed = threading.Event()
    threading.Thread(target=read, args=(given, lines, channel, warmed), daemon=True).start()
    if warm is not None:
        warm()
    warmed.set()
    with contextlib.suppress(BrokenPipeError):
        while (line := lines.get()) is not None:
            asked = json.loads(line)
            answer(channel, asked["id"], calls, asked["call"], asked["args"])
    sys.stderr.flush()
    os._exit(0)  # threads of libraries have nothing to finish


def follow(parent: int) -> None:
    """End with the process that started this one, also where it is killed (Linux)."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return  # elsewhere the end of the input says so
    if os.getppid() != parent:
        os._exit(0)


def read(given: int, lines: queue.SimpleQueue[str | None], channel: Channel, warmed: threading.Event) -> None:
    """Hand on each line of the input but for stops; where it ends, stop the call under way and then the process: at
    once, where nothing was asked of it yet and the libraries are still being imported.
    """
    with os.fdopen(given, encoding="utf-8") as file:
        for line in file:
            if line.startswith('{"stop"'):
                channel.stop(json.loads(line)["stop"])
            else:
                lines.put(line)
    if lines.empty() and not warmed.is_set():
        os._exit(0)
    lines.put(None)
    number = channel.number
    if number is not None:
        channel.stop(number)
        timer = threading.Timer(GRACE, os._exit, (1,))
        timer.daemon = True
        timer.start()


def answer(
    channel: Channel, number: int, calls: Mapping[str, str | Callable[..., Any]], call: str, args: dict[str, Any]
) -> None:
    """Run one call and tell how it went."""
    told: dict[str, Any]
    try:
        try:
            channel.number = number
            if number in channel.stopped:
                raise KeyboardInterrupt
            told = {"result": _run(channel, number, _find(calls, call), args)}
        finally:
            channel.number = None
    except KeyboardInterrupt:
        told = {"error": _table(Interrupted("stopped"))}
    except Exception as error:
        told = {"error": _table(deliberate(error))}
    try:
        channel.send({"id": number, **told})
    except (TypeError, ValueError) as error:
        traceback.print_exc()
        channel.send({"id": number, "error": _table(deliberate(error))})


def _find(calls: Mapping[str, str | Callable[..., Any]], call: str) -> Callable[..., Any]:
    known = calls.get(call)
    if known is None:
        raise BitwrightError(f"no call is named {call!r}", where="the worker")
    if not isinstance(known, str):
        return known
    module, _, function = known.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(f"bitwright.studio.worker.{module}"), function)
    return found


def _run(channel: Channel, number: int, function: Callable[..., Any], args: dict[str, Any]) -> Any:
    found = function(**args)
    if not isinstance(found, GeneratorType):
        return found
    try:
        while True:
            event = next(found)
            channel.send({"id": number, "event": event if isinstance(event, dict) else event.json()})
    except StopIteration as end:
        return end.value
    finally:
        found.close()


def _table(error: BitwrightError) -> dict[str, Any]:
    return {
        "kind": type(error).__name__, "text": str(error), "what": error.what, "where": error.where, "fix": error.fix,
        "key": error.key,
    }  # fmt: skip


def deliberate(error: Exception) -> BitwrightError:
    """Any error as one of ours: what the system refuses becomes a ResourceError, the rest is told as unforeseen."""
    if isinstance(error, BitwrightError):
        return error
    memory = ResourceError("out of memory", fix="Close other programs, use method rtn, or take a smaller model")
    if isinstance(error, OSError):
        where = str(error.filename) if error.filename else "file system"
        fix = "Check permissions and free disk space; finished work is kept"
        return ResourceError(error.strerror or str(error), where=where, fix=fix)
    if isinstance(error, MemoryError):
        return memory
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in EXTRA:
        fix = "This needs the extra `onnx`: pip install 'bitwright[onnx]'"
        return ResourceError("not installed", where=str(error.name), fix=fix)
    text = str(error)
    if isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text.lower()):
        return memory
    traceback.print_exc()
    line = (text.strip().splitlines() or [""])[0][:300]
    return BitwrightError(
        f"an unexpected error: {type(error).__name__}: {line}", fix="Please report it; nothing was lost"
    )


if __name__ == "__main__":
    main()
