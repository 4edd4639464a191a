"""GGUF's K-quants: two levels of scales, small integers per 16 or 32 weights times an fp16 factor per 256.

Source: llama.cpp, `ggml-common.h` (block_q2_K ... block_q6_K). Q2_K, Q4_K and Q5_K mean w = d sc q - dmin m, where q
counts from 0: the shift of a block is -dmin m, its outer factor -dmin. Q3_K and Q6_K mean w = d sc q, q and sc signed.
"""

from bitwright.core.format import Format
from bitwright.core.formats import Asked, Family
from bitwright.core.grid import INT, UINT
from bitwright.core.scaling import Levels

SUPER = 256
"""Weights per fp16 factor."""
SHIFTED = {2: (16, "u4"), 4: (32, "u6"), 5: (32, "u6")}
SYMMETRIC = {3: (16, "i6"), 6: (16, "i8")}


def make(name: str, asked: Asked) -> Format:
    """The format as GGUF defines it; settings have no effect."""
    bits = int(name[1])
    outer = (SUPER, "fp16")
    if bits in SYMMETRIC:
        return Format(name, INT[bits], Levels.of(SYMMETRIC[bits], outer))
    inner = SHIFTED[bits]
    return Format(name, UINT[bits], Levels.of(inner, outer), shift=Levels.of(inner, outer, zeros=True))


FAMILY = Family(
    {
        "q2_k": "GGUF Q2_K: 2.625 bits per weight, scale and minimum per 16",
        "q3_k": "GGUF Q3_K: 3.4375 bits per weight, scale per 16",
        "q4_k": "GGUF Q4_K: 4.5 bits per weight, scale and minimum per 32",
        "q5_k": "GGUF Q5_K: 5.5 bits per weight, scale and minimum per 32",
        "q6_k": "GGUF Q6_K: 6.5625 bits per weight, scale per 16",
    },
    make,
    "K-quants",
)
