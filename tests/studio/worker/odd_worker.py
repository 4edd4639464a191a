"""A worker with calls that behave badly: `python odd_worker.py PARENT`."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bitwright.errors import ModelError
from bitwright.studio.worker.__main__ import serve


def echo(**args: Any) -> Any:
    return args


def pid() -> int:
    return os.getpid()


def long(size: int) -> str:
    return "x" * size


def count(to: int, pause: float = 0.0) -> Iterator[dict[str, Any]]:
    for i in range(to):
        yield {"event": "count", "i": i}
        time.sleep(pause)
    return to


def shout() -> str:
    print("this is no protocol")
    os.write(1, b"neither is this\n")
    sys.stdout.write("nor that")
    sys.stdin.read()
    return "still here"


def refuse() -> None:
    raise ModelError("is odd", where="model", fix="Give an even one")


def stumble() -> None:
    raise KeyError("nobody thought of this")


def disk() -> None:
    raise OSError(28, "No space left on device", "some/file")


def unspeakable() -> object:
    return {1, 2}


def die(marker: str | None = None) -> str:
    """Dies, or where `marker` is given only the first time."""
    if marker is None or not Path(marker).exists():
        if marker is not None:
            Path(marker).touch()
        print("my last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def stubborn(seconds: float) -> str:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            time.sleep(0.05)
        except KeyboardInterrupt:
            continue
    return "done anyway"


def tidy(marker: str) -> Iterator[dict[str, Any]]:
    """Cleans up when it is stopped."""
    try:
        yield {"event": "begun"}
        time.sleep(60)
    finally:
        Path(marker).write_text("clean")


if __name__ == "__main__":
    serve({f.__name__: f for f in (
        echo, pid, long, count, shout, refuse, stumble, disk, unspeakable, die, stubborn, tidy,
    )})  # fmt: skip
