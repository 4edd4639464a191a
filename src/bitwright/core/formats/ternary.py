"""Three values, in two bits."""

from bitwright.core.format import Format
from bitwright.core.formats import Asked, Family
from bitwright.core.grid import TERNARY


def make(name: str, asked: Asked) -> Format:
    """Symmetric."""
    return Format(name, TERNARY, asked.levels())


FAMILY = Family({"ternary": "-1, 0 or 1"}, make, "Ternary")
