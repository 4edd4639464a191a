"""Quantiles of the normal distribution (QLoRA, arXiv 2305.14314)."""

from bitwright.core.format import Format
from bitwright.core.formats import Asked, Family
from bitwright.core.grid import NF4


def make(name: str, asked: Asked) -> Format:
    """Symmetric."""
    return Format(name, NF4, asked.levels())


FAMILY = Family({"nf4": "NormalFloat of 4 bits: quantiles of a normal distribution"}, make, "NormalFloat")
