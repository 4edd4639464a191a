"""Events handed on to whoever listens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

BEHIND = 2000
"""Events that a reader may be behind before it is left to connect again."""

Event = dict[str, Any]


class Told(NamedTuple):
    """An event as a stream tells it; `line` is its number in the log, None for what is not logged."""

    line: int | None
    event: Event


class Topic:
    """Hands events on to whoever listens."""

    def __init__(self) -> None:
        self._readers: set[asyncio.Queue[Told | None]] = set()

    @contextlib.contextmanager
    def listen(self) -> Iterator[asyncio.Queue[Told | None]]:
        """A queue of what is told from now on; it ends with None where its reader fell behind."""
        queue: asyncio.Queue[Told | None] = asyncio.Queue()
        self._readers.add(queue)
        try:
            yield queue
        finally:
            self._readers.discard(queue)

    def tell(self, told: Told | None) -> None:
        """Hand one event to all, or None: the end."""
        for queue in tuple(self._readers):
            if queue.qsize() >= BEHIND:
                self._readers.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(told)
