"""Integers: two's complement, and the narrow range that ONNX containers hold."""

from bitwright.core.format import Format
from bitwright.core.formats import Asked, Family
from bitwright.core.grid import INT, NARROW, midrise
from bitwright.core.scaling import Levels

TWOS = {f"int{b}": f"integers of {b} bit{'s' * (b > 1)}, {-(2 ** (b - 1))} to {2 ** (b - 1) - 1}" for b in INT}
TIGHT = {f"int{b}_narrow": f"integers of {b} bits without the lowest, {1 - 2 ** (b - 1)} to {2 ** (b - 1) - 1}"
         for b in NARROW}  # fmt: skip


def make(name: str, asked: Asked) -> Format:
    """`int<b>`, symmetric or with zero points; `int<b>_narrow`, symmetric, whose scales never need to be negative.

    A symmetric int<b> may have a negative scale: it gives the extra level -2^(b-1) to the longer tail. Negated codes
    would need +2^(b-1) then, which b bits cannot hold; ONNX kernels expect positive scales, hence the narrow range.
    """
    bits = int(name[3])
    if name in TIGHT:
        return Format(name, NARROW[bits], asked.levels())
    if not asked.symmetric:
        return Format(name, INT[bits], asked.levels(), Levels.of((asked.block(), f"i{bits}"), zeros=True))
    if bits == 1:
        # One signed bit means -1 or 0, which no symmetric quantizer wants: use -1/2 and +1/2.
        return Format(name, midrise(1), asked.levels(zeros=True))
    return Format(name, INT[bits], asked.levels())


FAMILY = Family(TWOS | TIGHT, make, "Integers")
