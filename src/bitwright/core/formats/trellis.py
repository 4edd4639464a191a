"""Trellis codes: near what rate-distortion theory allows, and slow to find (QTIP, arXiv 2406.11235)."""

from bitwright.core.format import Format
from bitwright.core.formats import Asked, Family
from bitwright.core.scaling import Levels
from bitwright.core.trellis import Trellis


def make(name: str, asked: Asked) -> Format:
    """One scale per row of the rotated matrix, which needs no more; settings have no effect."""
    return Format(name, Trellis(name, int(name[-1])), Levels.of(("channel", "fp16"), zeros=True), rotated=True)


FAMILY = Family(
    {f"trellis{b}": f"{b} bits per weight on a path through {4096 << b:,} states, rows rotated" for b in (2, 3, 4)},
    make,
    "Trellis",
)
