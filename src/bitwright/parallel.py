"""Pieces of a matrix, several at once, with results taken in the order of the pieces."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from bitwright import machine

T = TypeVar("T")
PIECE = 1 << 20
"""Bytes below which malloc enlarges its heap: faulting the pages of a new map in costs more than the arithmetic."""


def in_order(work: Callable[[int], T], starts: Iterable[int], take: Callable[[T], None]) -> None:
    """take(work(start)) for every start, in that order; `work` runs in as many threads as torch may use.

    Small pieces gain nothing from torch's own threads, so each piece gets one. What a piece gives does not depend on
    the others, and what is summed over them is summed in one order: any number of threads gives the same bytes.
    """
    machine.tune_malloc(PIECE, machine.KEPT)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # One thread too: what it allocates lies apart from the lasting small objects of this one.
        with ThreadPoolExecutor(threads) as pool:
            under_way: deque[Future[T]] = deque()
            for start in starts:
                under_way.append(pool.submit(work, start))
                if len(under_way) > 2 * threads:
                    take(under_way.popleft().result())
            while under_way:
                take(under_way.popleft().result())
    finally:
        torch.set_num_threads(threads)
        if machine.limited():
            machine.tune_malloc(machine.MAPPED, machine.KEPT)
