"""GGUF's types, each by llama.cpp's name in lower case; its MXFP4 and NVFP4 are the formats `mxfp4` and `nvfp4`.

Source: llama.cpp, `ggml-common.h` (block_q4_0 ... block_tq2_0) and `dequantize_row_*` of `ggml-quants.c`. Every factor
is an fp16 number that may be negative. Q4_1, Q5_1: w = d q + m, where q counts from 0. Q2_K, Q4_K and Q5_K have small
numbers per 16 or 32 weights, too: w = d sc q - dmin m; the shift of a block is -dmin m, its outer factor -dmin. All
others mean w = d q or w = d sc q, with q and sc signed.
"""

from __future__ import annotations

from dataclasses import dataclass

from bitwright.core.code import Code
from bitwright.core.format import Format
from bitwright.core.formats import Asked, Family
from bitwright.core.grid import INT, TERNARY, UINT, Grid
from bitwright.core.scaling import Block, Levels

SUPER = 256
"""Weights per fp16 factor around small scales."""
IQ4 = Grid("iq4", (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113))
"""`kvalues_iq4nl`: fitted to weights like normal ones, without a zero."""


@dataclass(frozen=True)
class Trits(Grid):
    """-1, 0 and 1 in base 3: of 256 weights, 240 lie five to a byte and 16 four to a byte."""

    def row_bits(self, weights: int) -> int:
        """52 bytes for 256 weights."""
        return -(-weights * 52 * 8 // SUPER)


TRITS = Trits("trits", TERNARY.values)
HALF: tuple[Block, str] = (32, "fp16")
WIDE: tuple[Block, str] = (SUPER, "fp16")
PLAIN: dict[str, tuple[Code, Levels]] = {
    "q4_0": (INT[4], Levels.of(HALF)),
    "q5_0": (INT[5], Levels.of(HALF)),
    "q8_0": (INT[8], Levels.of(HALF)),
    "iq4_nl": (IQ4, Levels.of(HALF, zeros=True)),
    "iq4_xs": (IQ4, Levels.of((32, "i6"), WIDE, zeros=True)),
    "tq1_0": (TRITS, Levels.of(WIDE)),
    "tq2_0": (TERNARY, Levels.of(WIDE)),
    "q3_k": (INT[3], Levels.of((16, "i6"), WIDE)),
    "q6_k": (INT[6], Levels.of((16, "i8"), WIDE)),
}
"""The code and its scales."""
SHIFTED: dict[str, tuple[Code, tuple[tuple[Block, str], ...]]] = {
    "q4_1": (UINT[4], (HALF,)),
    "q5_1": (UINT[5], (HALF,)),
    "q2_k": (UINT[2], ((16, "u4"), WIDE)),
    "q4_k": (UINT[4], ((32, "u6"), WIDE)),
    "q5_k": (UINT[5], ((32, "u6"), WIDE)),
}
"""The code, and the levels of scales and shifts alike."""


def make(name: str, asked: Asked) -> Format:
    """The format as GGUF defines it; settings have no effect."""
    if name in PLAIN:
        return Format(name, *PLAIN[name])
    code, levels = SHIFTED[name]
    return Format(name, code, Levels.of(*levels), shift=Levels.of(*levels, zeros=True))


FAMILY = Family(
    {
        "q2_k": "GGUF Q2_K: 2.625 bits per weight, scale and minimum per 16",
        "q3_k": "GGUF Q3_K: 3.4375 bits per weight, scale per 16",
        "q4_k": "GGUF Q4_K: 4.5 bits per weight, scale and minimum per 32",
        "q5_k": "GGUF Q5_K: 5.5 bits per weight, scale and minimum per 32",
        "q6_k": "GGUF Q6_K: 6.5625 bits per weight, scale per 16",
        "q4_0": "GGUF Q4_0: 4.5 bits per weight, fp16 scale per 32",
        "q4_1": "GGUF Q4_1: 5 bits per weight, fp16 scale and minimum per 32",
        "q5_0": "GGUF Q5_0: 5.5 bits per weight, fp16 scale per 32",
        "q5_1": "GGUF Q5_1: 6 bits per weight, fp16 scale and minimum per 32",
        "q8_0": "GGUF Q8_0: 8.5 bits per weight, fp16 scale per 32",
        "iq4_nl": "GGUF IQ4_NL: 4.5 bits per weight, unevenly spaced, fp16 scale per 32",
        "iq4_xs": "GGUF IQ4_XS: 4.25 bits per weight, unevenly spaced, scale per 32",
        "tq1_0": "GGUF TQ1_0: -1, 0 or 1 in 1.6875 bits per weight, fp16 scale per 256",
        "tq2_0": "GGUF TQ2_0: -1, 0 or 1 in 2.0625 bits per weight, fp16 scale per 256",
    },
    make,
    "GGUF",
)
