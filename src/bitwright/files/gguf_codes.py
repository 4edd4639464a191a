"""The codes in the blocks of a GGUF file, as far as one code is one weight: for counting, their order is another.

Layouts: llama.cpp, ggml-common.h (block_q4_0 ... block_iq4_xs) and dequantize_row_* of ggml-quants.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bitwright.core.code import Code
from bitwright.core.grid import FP4, TERNARY, UINT

Raw = np.ndarray[Any, Any]
"""Blocks [blocks, bytes]; and codes uint8 [blocks, weights]."""


def _nibbles(raw: Raw) -> Raw:
    """The low four bits of all bytes, then the high ones."""
    return np.concatenate([raw & 15, raw >> 4], axis=1)


def _pairs(raw: Raw) -> Raw:
    """Four codes of two bits in each byte."""
    return np.concatenate([(raw >> shift) & 3 for shift in (0, 2, 4, 6)], axis=1)


def _five(raw: Raw, high: int) -> Raw:
    """Q5_0 and Q5_1: 32 fifth bits from byte `high` on, then nibbles."""
    fifth = np.unpackbits(raw[:, high : high + 4], axis=1, bitorder="little")
    codes: Raw = _nibbles(raw[:, high + 4 : high + 20]) | fifth << 4
    return codes


def _q3_k(raw: Raw) -> Raw:
    """A third bit for each of 32 bytes, eight times over, and codes of two bits."""
    mask, low = raw[:, :32], raw[:, 32:96]
    parts = [low[:, 32 * n : 32 * n + 32] >> 2 * j & 3 | (mask >> (4 * n + j) & 1) << 2
             for n in range(2) for j in range(4)]  # fmt: skip
    return np.concatenate(parts, axis=1)


def _q5_k(raw: Raw) -> Raw:
    """A fifth bit for each of 32 bytes, eight times over, and nibbles."""
    fifth, low = raw[:, 16:48], raw[:, 48:176]
    parts = [(low[:, 32 * (j // 2) : 32 * (j // 2) + 32] >> 4 * (j % 2)) & 15 | (fifth >> j & 1) << 4 for j in range(8)]
    return np.concatenate(parts, axis=1)


def _q6_k(raw: Raw) -> Raw:
    """Two halves, each of 64 bytes of nibbles and 32 bytes that hold the two bits above them of four codes."""
    parts = []
    for half in range(2):
        low, high = raw[:, 64 * half : 64 * half + 64], raw[:, 128 + 32 * half : 160 + 32 * half]
        for j in range(4):
            nibble = (low[:, 32 * (j % 2) : 32 * (j % 2) + 32] >> 4 * (j // 2)) & 15
            parts.append(nibble | (high >> 2 * j & 3) << 4)
    return np.concatenate(parts, axis=1)


CODES: dict[str, tuple[Code, Callable[[Raw], Raw]]] = {
    "Q4_0": (UINT[4], lambda raw: _nibbles(raw[:, 2:])),
    "Q4_1": (UINT[4], lambda raw: _nibbles(raw[:, 4:])),
    "Q5_0": (UINT[5], lambda raw: _five(raw, 2)),
    "Q5_1": (UINT[5], lambda raw: _five(raw, 4)),
    "Q8_0": (UINT[8], lambda raw: raw[:, 2:]),
    "Q2_K": (UINT[2], lambda raw: _pairs(raw[:, 16:80])),
    "Q3_K": (UINT[3], _q3_k),
    "Q4_K": (UINT[4], lambda raw: _nibbles(raw[:, 16:])),
    "Q5_K": (UINT[5], _q5_k),
    "Q6_K": (UINT[6], _q6_k),
    "IQ4_NL": (UINT[4], lambda raw: _nibbles(raw[:, 2:])),
    "IQ4_XS": (UINT[4], lambda raw: _nibbles(raw[:, 8:])),
    "TQ2_0": (TERNARY, lambda raw: _pairs(raw[:, :64])),
    "MXFP4": (FP4, lambda raw: _nibbles(raw[:, 1:])),
}
"""Types whose weights have a code each: what it means, level for level, and where it lies in a block."""
VECTORS = frozenset({"IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ3_S", "IQ2_S", "IQ1_M"})
"""Types whose codes stand for several weights at once."""
