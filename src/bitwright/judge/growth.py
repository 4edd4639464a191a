"""How CPU time grows with the size of the input: measured, and held against what a problem asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

SLACK = 0.5
"""How much steeper than asked the measured growth may be: one power more is seen, a logarithm and noise are not."""
QUICK = 0.02
"""CPU seconds above an empty run: below this growth cannot be measured, and nobody would mind it."""
LEAST = 0.002
"""CPU seconds below which a single point says nothing."""


@dataclass(frozen=True)
class Measured:
    """CPU seconds by size; `late` where the last size was stopped by the limit, so that only less is known."""

    sizes: list[int]
    seconds: list[float]
    allowed: float
    late: bool = False

    @property
    def exponent(self) -> float | None:
        """The slope of log time over log size by least squares; None where it was too quick, or stopped."""
        points = [(math.log(n), math.log(t)) for n, t in zip(self.sizes, self.seconds, strict=True) if t > LEAST]
        if self.late or not self.seconds or self.seconds[-1] < QUICK or len(points) < 2:
            return None
        x, y = (sum(axis) / len(points) for axis in zip(*points, strict=True))
        return float(sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points))

    @property
    def good(self) -> bool:
        """Whether it grows no faster than allowed."""
        return not self.late and (self.exponent is None or self.exponent <= self.allowed + SLACK)

    @property
    def text(self) -> str:
        """What is wrong, in a sentence or two."""
        asked = f"Time may grow like {power(self.allowed)}"
        if self.late:
            before = f"; size {self.sizes[-2]:,} took {self.seconds[-2]:.2f} s" if len(self.sizes) > 1 else ""
            stopped = f"was stopped after {self.seconds[-1]:.1f} s of CPU time{before}"
            return f"{asked}. An input of size {self.sizes[-1]:,} {stopped}."
        return f"{asked}, yours grew like n^{self.exponent or 0:.1f} up to n = {self.sizes[-1]:,}."

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "sizes": self.sizes, "seconds": self.seconds, "exponent": self.exponent, "allowed": self.allowed,
            "late": self.late,
        }  # fmt: skip


def power(exponent: float) -> str:
    """A growth as it is written: n, n^2."""
    return "n" if exponent == 1 else f"n^{exponent:g}"
