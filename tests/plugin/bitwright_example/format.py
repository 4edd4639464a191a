"""A family of number formats: zero and powers of two, so that a product is a shift."""

from bitwright.core.format import Format
from bitwright.core.formats import Asked, Family
from bitwright.core.grid import Grid


def make(name: str, asked: Asked) -> Format:
    """The format of a name, with the scales that were asked for: `powers3` has the values -4 -2 -1 0 1 2 4."""
    powers = [2.0**i for i in range(2 ** (int(name[-1]) - 1) - 1)]
    values = (*(-power for power in reversed(powers)), 0.0, *powers)
    return Format(name, Grid(name, values), asked.levels())


FAMILY = Family(
    titles={f"powers{bits}": f"zero and powers of two in {bits} bits" for bits in (3, 4)},
    make=make,
    title="Powers of two",
)
