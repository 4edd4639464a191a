"""Evenly spaced values without a zero."""

from bitwright.core.format import Format
from bitwright.core.formats import Asked, Family
from bitwright.core.grid import midrise


def make(name: str, asked: Asked) -> Format:
    """Symmetric; a scale that is too small to store is 0, and its block decodes to zeros."""
    return Format(name, midrise(int(name[-1])), asked.levels(zeros=True))


FAMILY = Family(
    {f"midrise{b}": f"{2**b} evenly spaced values around 0, without 0" for b in range(1, 9)}, make, "Without a zero"
)
