"""The levels and entropy of a whole model, and where levels are wasted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bitwright.core.measure import Usage
from bitwright.events import Finding, Precision
from bitwright.words import entropy, levels, plural, summed


def wasted(usage: Usage) -> str | None:
    """What is wrong with codes whose bits are not all needed; None where they are."""
    if not usage.spare:
        return None
    return f"{levels(usage.levels, usage.used)} levels used: {plural(usage.needed, 'bit')} would hold its codes"


def mean(rows: Sequence[Precision]) -> dict[str, float | None]:
    """Levels there, levels used and entropy in bits per weight of a whole model: means of its matrices by weights.

    None where a matrix does not have them.
    """
    sizes = [row.rows * row.columns for row in rows]

    def of(values: Sequence[float | None]) -> float | None:
        known = [value * size for value, size in zip(values, sizes, strict=True) if value is not None]
        return sum(known) / max(sum(sizes), 1) if len(known) == len(sizes) > 0 else None

    return {
        "levels": of([row.levels for row in rows]),
        "levels_used": of([row.levels_used for row in rows]),
        "entropy": of([row.entropy for row in rows]),
    }


def findings(rows: Sequence[Precision], usages: Mapping[str, Usage], parts: str) -> Iterator[Finding]:
    """What a check says of the levels in its matrices `rows`, whose `parts` are called so; nothing without any."""
    if not rows:
        return
    whole = mean(rows)
    weights = sum(row.rows * row.columns for row in rows)
    stored = sum(row.stored_bits for row in rows) / max(weights, 1)
    told = f"{levels(whole['levels'], whole['levels_used'])} used, the mean of {len(rows):,} {parts}"
    yield Finding("levels", True, f"{told}; entropy {entropy(whole['entropy'])} of {stored:.3f} stored bits per weight")
    for line in summed(((name, why) for name, u in usages.items() if (why := wasted(u))), parts):
        yield Finding("levels", True, line)
    rounded = [row.input_levels for row in rows if row.input_levels is not None]
    if rounded:
        there = " or ".join(map(str, sorted(set(rounded))))
        told = f"inputs of {len(rounded):,} of {len(rows):,} {parts} are rounded to {there} levels"
        yield Finding("activations", True, f"{told}; which are used depends on the data")
