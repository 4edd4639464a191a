"""Calibration text of several sources: which they are, how many windows each has, and in which order they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bitwright.errors import RecipeError
from bitwright.files import hub
from bitwright.models.language.data import Dataset
from bitwright.recipe import BROUGHT, WRITTEN, Calibration, Share

LEAST = 2
"""Windows of a source in a mixture: one for each half."""


def shares_of(c: Calibration) -> dict[str, int]:
    """Windows of each source, in the order given, `c.windows` in all.

    Raises RecipeError for a share that is none, a source that is given twice or that cannot be mixed, and for fewer
    than LEAST windows of one.
    """
    given = [Share.read(text) for text in c.source]
    same: dict[str, str] = {}
    for name, _ in given:
        if (other := same.setdefault(identity(name), name)) is not name:
            what = f"{name} is given twice" if other == name else f"{name} and {other} are the same text"
            raise RecipeError(what, where="--calib", fix="Give it once, with one share", key="calibration.source")
    if len(given) > 1 and WRITTEN in (share.source for share in given):
        what = "text that the model writes itself is not mixed with other text"
        raise RecipeError(what, where="--calib", fix=f"Leave {WRITTEN} out", key="calibration.source")
    counts = divide(c.windows, [share.share for share in given])
    fewest = min(counts)
    if len(given) > 1 and fewest < LEAST:
        last = given[counts.index(fewest)]
        enough = -(-LEAST * sum(share.share for share in given) // last.share)
        many = f"Give --windows {enough:,.0f} or more" if enough < 1e6 else "Raise its share"
        what = f"its share of {c.windows:,} windows is {fewest}, and each half of them needs one"
        raise RecipeError(what, where=last.source, fix=f"{many}, or leave it out", key="calibration.source")
    return {share.source: count for share, count in zip(given, counts, strict=True)}


def identity(source: str) -> str:
    """What a source is, however it is written: a path without links and dots, a data set with all its parts."""
    if source in (WRITTEN, BROUGHT):
        return source
    if source.startswith(hub.PREFIX):
        return str(Dataset.parse(source))
    return str(Path(source).expanduser().resolve())


def divide(total: int, shares: Sequence[float]) -> list[int]:
    """`total` in whole parts in proportion to `shares`: what is left after rounding down goes to the largest rests.

    >>> divide(32, [3, 1]), divide(10, [1, 1, 1])
    ([24, 8], [4, 3, 3])
    """
    most = max(shares)  # huge shares have no finite sum
    whole = sum(share / most for share in shares)
    exact = [total * (share / most) / whole for share in shares]
    counts = [int(part) for part in exact]
    rests = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for i in rests[: total - sum(counts)]:
        counts[i] += 1
    return counts


def interleave(counts: Sequence[int]) -> list[int]:
    """For each window the number of its source; source i comes `counts[i]` times.

    Windows come in pairs of one source, so that the even and the odd ones hold each source in its share, and the pair
    that comes next is of the source that is furthest behind, so that any beginning does too. A last window without a
    partner comes at the end.

    >>> interleave([6, 2])
    [0, 0, 0, 0, 1, 1, 0, 0]
    """
    order = [i for i in _pairs([count // 2 for count in counts]) for _ in range(2)]
    return order + [i for i, count in enumerate(counts) if count % 2]


def _pairs(counts: Sequence[int]) -> Iterator[int]:
    """The number of the source that is furthest behind its share of all pairs so far, of equal ones the first."""
    total, given = sum(counts), [0] * len(counts)
    for done in range(1, total + 1):
        behind = [counts[i] * done - given[i] * total for i in range(len(counts))]
        chosen = behind.index(max(behind))
        given[chosen] += 1
        yield chosen
