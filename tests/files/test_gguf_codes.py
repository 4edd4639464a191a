"""Codes of GGUF blocks, weight for weight as llama.cpp's dequantize_row_* reads them: here with plain loops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bitwright.files.gguf import TYPES, read
from bitwright.files.gguf_codes import CODES, VECTORS
from tests import gguf

Block = list[int]


def nibbles(at: int, count: int) -> Callable[[Block], list[int]]:
    """Weights in `count` bytes from `at` on, two in each."""
    return lambda b: [b[at + i % count] >> 4 * (i // count) & 15 for i in range(2 * count)]


def five(high: int) -> Callable[[Block], list[int]]:
    """Q5_0 and Q5_1: weight i has bit i of a word of 32 bits above its nibble."""

    def codes(b: Block) -> list[int]:
        word = sum(b[high + i] << 8 * i for i in range(4))
        return [code | (word >> i & 1) << 4 for i, code in enumerate(nibbles(high + 4, 16)(b))]

    return codes


def q2_k(b: Block) -> list[int]:
    return [b[16 + 32 * (i // 128) + i % 32] >> 2 * (i % 128 // 32) & 3 for i in range(256)]


def q3_k(b: Block) -> list[int]:
    return [
        b[32 + 32 * (i // 128) + i % 32] >> 2 * (i % 128 // 32) & 3 | (b[i % 32] >> i // 32 & 1) << 2
        for i in range(256)
    ]


def q4_k(b: Block) -> list[int]:
    return [b[16 + 32 * (i // 64) + i % 32] >> 4 * (i % 64 // 32) & 15 for i in range(256)]


def q5_k(b: Block) -> list[int]:
    return [
        b[48 + 32 * (i // 64) + i % 32] >> 4 * (i % 64 // 32) & 15 | (b[16 + i % 32] >> i // 32 & 1) << 4
        for i in range(256)
    ]


def q6_k(b: Block) -> list[int]:
    codes = []
    for i in range(256):
        half, part, at = i // 128, i % 128 // 32, i % 32
        low = b[64 * half + 32 * (part % 2) + at] >> 4 * (part // 2) & 15
        codes.append(low | (b[128 + 32 * half + at] >> 2 * part & 3) << 4)
    return codes


PLAIN: dict[str, Callable[[Block], list[int]]] = {
    "Q4_0": nibbles(2, 16), "Q4_1": nibbles(4, 16), "Q5_0": five(2), "Q5_1": five(4), "Q8_0": lambda b: b[2:],
    "Q2_K": q2_k, "Q3_K": q3_k, "Q4_K": q4_k, "Q5_K": q5_k, "Q6_K": q6_k, "IQ4_NL": nibbles(2, 16),
    "IQ4_XS": nibbles(8, 128), "MXFP4": nibbles(1, 16),
    "TQ2_0": lambda b: [b[i % 64] >> 2 * (i // 64) & 3 for i in range(256)],
}  # fmt: skip


@pytest.mark.parametrize("name", CODES)
def test_codes_are_those_of_plain_loops(name: str, tmp_path: Path) -> None:
    number, kind = next((number, kind) for number, kind in TYPES.items() if kind.name == name)
    rng = np.random.default_rng(number)
    raw = rng.integers(0, 256, (5, kind.size), dtype=np.uint8)
    raw[1:, : kind.size] &= 0x77  # so that not all levels are as frequent
    wanted = Counter(code for block in raw.tolist() for code in PLAIN[name](block))
    code, codes = CODES[name]
    assert Counter(codes(raw).ravel().tolist()) == wanted and codes(raw).shape == (5, kind.weights)
    (tmp_path / "m.gguf").write_bytes(gguf.made({"w": (number, (kind.weights, 5), raw.tobytes())}))
    found = read(tmp_path / "m.gguf")
    usage = found.usage(found.tensors[0])
    assert usage is not None and usage.levels == code.levels
    if name not in ("MXFP4", "TQ2_0"):  # -0 is 0 there, and the fourth code is none
        assert dict(enumerate(usage.counts.tolist())) == {i: wanted[i] for i in range(code.levels)}


def test_types_without_a_code_for_each_weight_are_not_counted(tmp_path: Path) -> None:
    known = {kind.name for kind in TYPES.values()}
    assert known >= VECTORS and not VECTORS & CODES.keys()
    (tmp_path / "m.gguf").write_bytes(gguf.made({"f": (0, (4, 1), bytes(16)), "v": (16, (256, 1), bytes(66))}))
    found = read(tmp_path / "m.gguf")
    assert [found.usage(tensor) for tensor in found.tensors] == [None, None]
