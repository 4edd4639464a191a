"""Pairs of samples for verification: whether both are of one identity."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import NamedTuple

from bitwright.errors import DataError
from bitwright.files.plain import read_text, why

MOST = 3000
"""Pairs of each kind that are drawn: as many as Labeled Faces in the Wild has (Huang et al. 2007)."""
LEAST = 2
"""Pairs of each kind without which no threshold can be chosen on one part and used on another."""


class Pair(NamedTuple):
    """The places of two samples, and whether they are of one identity."""

    first: int
    second: int
    same: bool


def draw_pairs(names: Sequence[str], identities: Sequence[int], seed: int, where: str) -> list[Pair]:
    """As many pairs of one identity as of two, MOST of each at most, from samples with `names` of `identities`.

    Those of one identity are taken from each in turn. The order of samples is that of SHA-256(seed, name), so the same
    files give the same pairs on every machine. Raises DataError where there are too few of either kind.
    """
    if len(set(identities)) < 2:
        what = f"{len(names)} samples of one identity: no two differ"
        raise DataError(what, where=where, fix="Give one folder per identity, at least two of them")
    order = sorted(range(len(names)), key=lambda i: (_key(names[i], seed), i))
    groups: dict[int, list[int]] = {}
    for i in order:
        groups.setdefault(identities[i], []).append(i)
    same = list(islice(_in_turn([groups[key] for key in sorted(groups)]), MOST))
    if len(same) < LEAST:
        what = (
            f"{len(groups)} identities with one sample each among {len(names)}" if not same else "one pair that is same"
        )
        fix = "Give two samples or more per identity, or more of them (data.heldout_samples)"
        raise DataError(what, where=where, fix=fix)
    other = list(islice(_apart(order, identities), len(same)))
    count = min(len(same), len(other))
    if count < LEAST:
        raise DataError("one pair that differs", where=where, fix="Give more samples, of more identities")
    return [Pair(a, b, True) for a, b in same[:count]] + [Pair(a, b, False) for a, b in other[:count]]


def read_pairs(path: Path, names: Sequence[str]) -> list[Pair]:
    """The pairs in a text file: two names of samples and 1 (same) or 0 (different), last or first in each line.

    Fields stand apart by tabs, commas or spaces; lines that are empty or begin with # are passed over. A sample is
    called by its path below the source. Raises DataError, naming the line, for anything else.
    """
    try:
        lines = read_text(path).removeprefix("\ufeff").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read ({why(error)})", where=str(path), fix="Give a text file", key=KEY) from error
    place = {name: i for i, name in enumerate(names)}
    pairs = []
    for number, line in enumerate(lines, 1):
        where = f"{path} line {number}"
        if not line.strip() or line.startswith("#"):
            continue
        mark = next((mark for mark in "\t," if mark in line), None)
        fields = [field.strip() for field in line.split(mark)]
        if len(fields) == 3 and fields[0] in ("0", "1") and fields[2] not in ("0", "1"):
            fields = [*fields[1:], fields[0]]
        if len(fields) != 3 or fields[2] not in ("0", "1"):
            fix = "Write two names of samples and 1 or 0, apart by tabs"
            raise DataError(f"no pair: {line.strip()[:60]!r}", where=where, fix=fix, key=KEY)
        lost = next((name for name in fields[:2] if name not in place), None)
        if lost is not None:
            fix = "Name samples by their paths below the source, and the folder that holds them all in data.heldout"
            raise DataError(f"no held-out sample is called {lost!r}", where=where, fix=fix, key=KEY)
        if fields[0] == fields[1]:
            raise DataError(f"{fields[0]!r} with itself", where=where, fix="Remove it", key=KEY)
        pairs.append(Pair(place[fields[0]], place[fields[1]], fields[2] == "1"))
    for same, what in ((True, "of one identity (1)"), (False, "of two identities (0)")):
        if sum(pair.same is same for pair in pairs) < LEAST:
            raise DataError(f"fewer than {LEAST} pairs {what}", where=str(path), fix="Give some", key=KEY)
    return pairs


KEY = "data.match.pairs"


def _key(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/pair/{name}".encode("utf-8", "surrogateescape")).digest()


def _in_turn(groups: list[list[int]]) -> Iterator[tuple[int, int]]:
    """All pairs inside of groups, one of each group in turn."""
    for turn in zip_longest(*(_inside(group) for group in groups)):
        yield from (pair for pair in turn if pair is not None)


def _inside(group: list[int]) -> Iterator[tuple[int, int]]:
    """All pairs of a group, neighbours first."""
    return ((group[i], group[i + step]) for step in range(1, len(group)) for i in range(len(group) - step))


def _apart(order: list[int], identities: Sequence[int]) -> Iterator[tuple[int, int]]:
    """All pairs of different identities, neighbours in `order` first."""
    for step in range(1, len(order)):
        for i in range(len(order) - step):
            if identities[order[i]] != identities[order[i + step]]:
                yield order[i], order[i + step]
