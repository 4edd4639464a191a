"""Numbers and names in words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def number(value: float | None) -> float:
    """A number of the JSON file; what JSON cannot hold comes back as NaN and never passes for a good value."""
    return math.nan if value is None else float(value)


def share(value: float | None) -> str:
    """A share in 0..1 as a percentage with two significant digits; `not measured` for None."""
    if value is None:
        return "not measured"
    percent = 100 * value
    if percent == 0 or not math.isfinite(percent):
        return f"{percent:g} %"
    return f"{percent:.{min(6, max(0, 1 - math.floor(math.log10(abs(percent)))))}f} %"


def megabytes(size: float) -> str:
    """Bytes as MB (10^6 bytes), GB from a thousand of them, kB below a tenth of one."""
    if size >= 1e9:
        return f"{size / 1e9:.2f} GB"
    return f"{size / 1e6:.{1 if size >= 1e6 else 2}f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def grown(before: float, after: float) -> bool:
    """Whether a file is larger than another by more than its header may be: a thousandth."""
    return after > 1.001 * before


def millions(count: int) -> str:
    """`18.3 M`; a small number in full."""
    return f"{count / 1e6:,.1f} M" if count >= 1e5 else f"{count:,}"


def milliseconds(value: float) -> str:
    """Three significant digits."""
    return f"{significant(value)} ms"


def significant(value: float) -> str:
    """A number of at least three significant digits, its whole part in full.

    >>> significant(13929.38), significant(0.07641)
    ('13,929', '0.0764')
    """
    digits = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:,.{max(0, digits)}f}"


def measured(value: float, interval: float) -> str:
    """A value with as many decimals as its 95 % interval deserves: two significant digits of the interval.

    A single window of text gives no interval: it is infinite.
    """
    if not math.isfinite(value):
        return "not finite"
    if not math.isfinite(interval):
        return f"{value:.2g} ± ∞"
    small = interval if interval > 0 else abs(value)
    decimals = min(9, max(0, 1 - math.floor(math.log10(small)))) if small > 0 else 0
    return f"{value:.{decimals}f} ± {interval:.{decimals}f}"


def kl_text(verdict: Mapping[str, Any]) -> str:
    """Mean KL of a verdict with its interval, in nats."""
    return f"{measured(number(verdict['kl']), number(verdict['kl_interval']))} nats"


def signed(text: str) -> str:
    """A change with its sign."""
    return text if text.startswith("-") else f"+{text}"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 layer`, `2,000 layers`."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def without_unit(before: str, after: str) -> tuple[str, str]:
    """`35.9 MB`, `15.5 MB` -> `35.9`, `15.5 MB`."""
    figure, unit = before.split()
    return (figure if after.endswith(f" {unit}") else before), after


def apart(text: str) -> tuple[str, str]:
    """`95.1 ± 1.1 %` -> `95.1 %`, `± 1.1 %`; `0.9 ± 0.1` -> `0.9`, `± 0.1`."""
    value, sign, spread = text.partition(" ± ")
    return (" ".join([value, *spread.split()[1:]]), f"± {spread}") if sign else (text, "")


def titles(paths: Iterable[str]) -> list[str]:
    """What sources are called: the last parts of their paths, numbered where two are alike.

    >>> titles(["a/text.txt", "stdlib", "b/text.txt"])
    ['text.txt (1)', 'stdlib', 'text.txt (3)']
    """
    names = [path.rstrip("/").rpartition("/")[2] for path in paths]
    return [f"{name} ({i})" if names.count(name) > 1 else name for i, name in enumerate(names, 1)]


def level(value: float | None) -> str:
    """SQNR of an output in dB; None is infinite (no error)."""
    return "exact" if value is None else f"{value:.1f} dB"


def lowest_output(levels: Mapping[str, float | None]) -> tuple[str, float | None]:
    """The output with the smallest SQNR; None is infinite."""
    return min(levels.items(), key=lambda pair: math.inf if pair[1] is None else pair[1])


def levels(there: float | None, used: float | None = None) -> str:
    """`15 of 16` levels; `16` where those in use are not known, "" where the values are floats."""
    if there is None:
        return ""
    return f"{there:.5g}" if used is None else f"{used:.5g} of {there:.5g}"


def entropy(value: float | None) -> str:
    """Bits per weight, or per value of an activation; "" where it was not measured."""
    return "" if value is None else f"{value:.2f}"


def some(names: Iterable[str], most: int, between: str = ", ") -> str:
    """`a, b and 3 more`."""
    known = list(names)
    more = len(known) - most
    return between.join(known[:most]) + (f" and {more:,} more" if more > 0 else "")


def kind_of_note(note: str) -> str:
    """A note without its numbers: notes of one kind differ in nothing else."""
    return re.sub(r"\d[\d.,]*(e[+-]?\d+)?", "#", note)


FEW = 4
"""Notes that differ in numbers alone have a line each up to so many; of more, one stands for all."""


def summed(notes: Iterable[tuple[str, str]], parts: str) -> list[str]:
    """Notes on named parts, those that say the same in one line.

    >>> summed([("a", "one scale per row"), ("b", "one scale per row"), ("b", "never used")], "matrices")
    ['2 matrices, one scale per row (first a)', 'b: never used']
    """
    kinds: dict[str, dict[str, list[str]]] = {}
    for name, note in notes:
        kinds.setdefault(kind_of_note(note), {}).setdefault(note, []).append(name)
    lines = []
    for texts in kinds.values():
        if len(texts) > FEW:
            note, names = next(iter(texts.items()))
            count = len({name for names in texts.values() for name in names})
            lines.append(f"{count:,} {parts}, as {names[0]}: {note}")
            continue
        for note, names in texts.items():
            several = f"{len(names):,} {parts}, {note} (first {names[0]})"
            lines.append(several if len(names) > 1 else f"{names[0]}: {note}")
    return lines


def one_line(value: object) -> str:
    """Text without line breaks and control characters: a name in a file must not steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in str(value))


def fit(line: str, width: int) -> str:
    """The line in one line of at most `width` columns; what does not fit goes from its middle."""
    line = one_line(line)
    if len(line) <= width:
        return line
    keep = width - 5
    return f"{line[: keep - keep // 3]} ... {line[-(keep // 3) :]}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
