"""Microscaling: FP4 in small blocks whose scales take 8 bits. Block and scale type belong to the format."""

from bitwright.core.format import Format
from bitwright.core.formats import Asked, Family
from bitwright.core.grid import FP4
from bitwright.core.scaling import Levels

SCALES = {"mxfp4": Levels.of((32, "e8m0")), "nvfp4": Levels.of((16, "e4m3"), ("tensor", "fp32"))}


def make(name: str, asked: Asked) -> Format:
    """The format as the standard defines it; settings have no effect."""
    return Format(name, FP4, SCALES[name])


FAMILY = Family(
    {
        "mxfp4": "OCP MX v1.0: FP4 in blocks of 32 with power-of-two scales",
        "nvfp4": "NVIDIA's FP4 in blocks of 16 with E4M3 scales and one float32 factor per tensor",
    },
    make,
    "Microscaling",
)
