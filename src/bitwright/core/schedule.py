"""How fast to learn at a step: rates as shares of the highest one."""

from __future__ import annotations

import math


def cosine(step: int, steps: int) -> float:
    """Half a cosine from 1 at step 0 to 0 at step `steps` (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
    return (1 + math.cos(math.pi * step / steps)) / 2


def warmed_cosine(step: int, steps: int, warmup: int) -> float:
    """The same after `warmup` steps, of `steps` in all, in which it rises in a straight line; never 0 within.

    >>> [round(warmed_cosine(i, 5, 2), 3) for i in range(5)]
    [0.5, 1.0, 1.0, 0.75, 0.25]
    """
    if step < warmup:
        return (step + 1) / warmup
    return cosine(step - warmup, steps - warmup)
