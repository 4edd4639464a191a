"""Floating-point numbers of 4 and 8 bits with one level of scales (OCP FP8, arXiv 2209.05433; OCP MX v1.0 for FP4)."""

from bitwright.core.format import Format
from bitwright.core.formats import Asked, Family
from bitwright.core.grid import E4M3, E5M2, FP4

KINDS = {"fp4": FP4, "fp8": E4M3, "fp8_e5m2": E5M2}


def make(name: str, asked: Asked) -> Format:
    """Symmetric; 8-bit floats have one scale per row by default, because their range is wide."""
    return Format(name, KINDS[name], asked.levels(128 if name == "fp4" else "channel"))


FAMILY = Family(
    {
        "fp4": "floats of 4 bits (E2M1), -6 to 6",
        "fp8": "floats of 8 bits (E4M3), -448 to 448",
        "fp8_e5m2": "floats of 8 bits (E5M2), -57344 to 57344",
    },
    make,
    "Floats",
)
