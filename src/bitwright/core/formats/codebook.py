"""Codebooks: each block has its own table of free values."""

from bitwright.core.code import Codebook
from bitwright.core.format import Format
from bitwright.core.formats import Asked, Family
from bitwright.core.scaling import Levels


def make(name: str, asked: Asked) -> Format:
    """The table holds the values at their full size, so no scale is stored."""
    return Format(name, Codebook(name, int(name[-1])), Levels.of((asked.block(), "one")))


FAMILY = Family(
    {f"codebook{b}": f"{2**b} free values per block, fitted to the weights" for b in range(1, 9)},
    make,
    "Learned levels",
)
