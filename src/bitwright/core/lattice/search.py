"""All blocks by the first guess that fits each; guesses of which a few blocks know nothing come last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from bitwright.core.array import Array, like, namespace
from bitwright.core.format import Format
from bitwright.core.lattice.borders import Borders
from bitwright.core.lattice.guesses import Guess, guesses

LIKELY = 8
"""Guesses that are tried on all blocks before a few of those that are left are asked about all others."""
FEW = 8

Fits = Callable[[Borders, Format, Guess], tuple[Array, ...]]
"""What is found of blocks by a guess, arrays [blocks, ...]; the last says of which it is true."""


def search(b: Borders, format: Format, fits: Fits) -> tuple[Array, ...] | None:
    """What is found of all blocks; None where one has none."""
    xp, order = namespace(b.w), guesses(format)
    found: tuple[Array, ...] = ()
    left = xp.arange(b.w.shape[0], device=b.w.device)
    for count in range(len(order)):
        if count == LIKELY:
            rest = _promising(b[left[:: -(-left.shape[0] // FEW)]], format, order[LIKELY:], fits)
            if rest is None:
                return None
            order[LIKELY:] = rest
        *tried, ok = fits(b[left], format, order[count])
        if not found:
            found = tuple(tried)
        won = left[ok]
        for x, y in zip(found, tried, strict=True):
            x[won] = y[ok]
        left = left[~ok]
        if not left.shape[0]:
            return found
    return None


def _promising(b: Borders, format: Format, order: list[Guess], fits: Fits) -> list[Guess] | None:
    """Guesses, first those that most of a few blocks are found by; None where one block is found by none."""
    xp, count = namespace(b.w), b.w.shape[0]
    firsts = [len(order)] * count
    for single in (True, False):
        places = [i for i, (low, _) in enumerate(order) if (low is None) == single]
        if not places:
            continue
        many = b[xp.repeat(xp.arange(count, device=b.w.device), len(places))]
        low, high = ([order[i][end] for i in places] * count for end in (0, 1))
        guess = None if single else like(low, b.w)[:, None], like(high, b.w)[:, None]
        ok = xp.reshape(fits(many, format, guess)[-1], (count, len(places)))
        for block, row in enumerate(ok.tolist()):
            firsts[block] = min([firsts[block], *(places[i] for i, fit in enumerate(row) if fit)])
    if max(firsts) == len(order):
        return None
    wins = Counter(firsts)
    return [order[i] for i in sorted(range(len(order)), key=lambda i: (-wins[i], i))]
