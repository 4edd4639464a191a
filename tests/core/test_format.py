"""Formats: blocks, and true stored bits against what a packer writes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.bits import pack
from bitwright.core.code import Codebook
from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.grid import INT, midrise
from bitwright.core.qtensor import QTensor
from bitwright.core.scaling import NUMBERS, Levels
from bitwright.errors import RecipeError
from bitwright.methods import rtn

STORED = [
    # name, options, rows, columns, bits counted by hand
    ("int4", {"group": 128}, 3, 256, 3 * 256 * 4 + 6 * 16),
    ("int4", {"group": 128, "symmetric": False}, 3, 256, 3 * 256 * 4 + 6 * (16 + 4)),
    ("int4", {"group": "channel"}, 5, 7, 5 * 32 + 5 * 16),  # 28 bits of codes a row, padded to 4 bytes
    ("int4_narrow", {"group": "channel", "scale": "fp32"}, 5, 8, 5 * 32 + 5 * 32),
    ("int3", {"group": 64, "symmetric": False, "scale": "fp32"}, 2, 64, 2 * 192 + 2 * (32 + 3)),
    ("int3", {"group": "tensor"}, 3, 5, 3 * 16 + 16),
    ("int8", {"group": "channel", "scale": "fp32"}, 4, 10, 4 * 80 + 4 * 32),
    ("nf4", {"group": 64}, 2, 128, 2 * 128 * 4 + 4 * 16),
    ("mxfp4", {}, 2, 64, 2 * 64 * 4 + 4 * 8),
    ("nvfp4", {}, 2, 64, 2 * 64 * 4 + 8 * 8 + 32),
    ("fp8", {}, 3, 10, 3 * 80 + 3 * 16),
    ("ternary", {"group": "channel"}, 2, 9, 2 * 24 + 2 * 16),
    ("codebook3", {"group": "tensor"}, 4, 16, 4 * 48 + 8 * 16),
    ("codebook4", {"group": "channel"}, 4, 16, 4 * 64 + 4 * 16 * 16),
    ("codebook2", {"group": 8}, 4, 16, 4 * 32 + 8 * 4 * 16),
    ("q6_k", {}, 2, 512, 2 * 512 * 6 + 64 * 8 + 4 * 16),
    ("q4_k", {}, 2, 512, 2 * 512 * 4 + 2 * (32 * 6 + 4 * 16)),
]


@pytest.mark.parametrize(("name", "options", "rows", "columns", "bits"), STORED)
def test_stored_bits_are_exact(name: str, options: dict, rows: int, columns: int, bits: int) -> None:
    assert named(name, **options).stored_bits(rows, columns) == bits


def test_stored_bits_in_larger_words() -> None:
    # 7 codes of 4 bits: 28 bits, one 32-bit word a row; 9 codes need two.
    assert named("int4", group="channel").stored_bits(2, 7, word=32) == 2 * 32 + 2 * 16
    assert named("int4", group="channel").stored_bits(2, 9, word=32) == 2 * 64 + 2 * 16


def test_doc_example() -> None:
    assert math.isclose(named("int4", symmetric=False).stored_bits(512, 512) / 512**2, 4.15625)


def empty(format: Format, rows: int, columns: int) -> QTensor:
    """A QTensor of this format with all its arrays, whatever they hold."""
    groups = (1, 1) if format.block == "tensor" else (rows, columns // format.block_size(columns))
    some = np.ones(groups, np.float32)
    table = np.ones((*groups, 2**format.bits), np.float32) if isinstance(format.code, Codebook) else None
    codes = np.zeros((rows, columns), np.uint8)
    q = QTensor(format, codes, some, format.zero and some, format.shift and some, table, format.scale.fit(some))
    return replace(q, shift_outer=format.shift.fit(some)) if format.shift else q


def packed(q: QTensor) -> int:
    """Bits of everything `q` holds, each array packed in its own type."""
    f = q.format
    total = 8 * pack(q.codes, f.bits).size + (0 if q.table is None else 8 * q.table.astype(np.float16).nbytes)
    parts = [(f.scale, q.scale, q.outer), (f.zero, q.zero, ()), (f.shift, q.shift, q.shift_outer)]
    for levels, inner, outer in parts:
        if levels is not None:
            arrays = zip(levels.levels, (inner, *outer), strict=True)
            total += sum(array.size * NUMBERS[level.type].bits for level, array in arrays)
    return total


@settings(max_examples=120, deadline=None)
@given(
    name=st.sampled_from(["int3", "int4", "int8", "midrise5", "nf4", "fp8", "codebook2", "ternary", "int2_narrow"]),
    group=st.sampled_from([4, 16, "channel", "tensor"]),
    scale=st.sampled_from(["fp32", "fp16", "bf16", "e8m0"]),
    symmetric=st.booleans(),
    rows=st.integers(1, 5),
    blocks=st.integers(1, 4),
)
def test_stored_bits_are_what_a_packer_writes(name, group, scale, symmetric, rows, blocks) -> None:
    format = named(name, group=group, scale=scale, symmetric=symmetric)
    columns = blocks * (group if isinstance(group, int) else 7)
    assert format.stored_bits(rows, columns) == packed(empty(format, rows, columns))


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"])
def test_stored_bits_count_every_level(name: str) -> None:
    q = empty(named(name), 3, 512)
    assert q.stored_bits() == q.format.stored_bits(3, 512) == packed(q)


def test_blocks() -> None:
    w = np.arange(24, dtype=np.float32).reshape(2, 12)
    assert named("int4", group=4).blocks(w)[1, 2].tolist() == [20, 21, 22, 23]
    assert named("int4", group="channel").blocks(w).shape == (2, 1, 12)
    assert named("int4", group="tensor").blocks(w).shape == (1, 1, 24)
    assert named("int4", group=4).fits(12) and not named("int4", group=5).fits(12)
    assert named("q6_k").fits(512) and not named("q6_k").fits(128), "a whole factor a row"
    assert [named("int4", group=g).block_count(2, 12) for g in (4, "channel", "tensor")] == [6, 2, 1]


def test_the_span_of_scales() -> None:
    assert named("int4").span == (8 * 2**-20, 8 * 65504.0)
    assert named("int4", scale="bf16").span[0] == 0.0 and named("int4", scale="bf16").span[1] > 1e39
    assert named("q6_k").span == (32 * 127 * 2**-20, 32 * 127 * 65504.0), "an int8 per 16 times an fp16 per 256"
    for form in (named("int4", group="channel"), named("fp8")):
        least, most = form.span
        w = np.array([[most, 0], [2 * most, 0], [least, 0]], np.float32)
        back = rtn.quantize(w, form).decode()[:, 0]
        assert back[0] == w[0, 0] and back[1] == most and abs(back[2] / least - 1) < 0.1


def test_a_codebook_has_no_grid() -> None:
    assert named("int4").grid is named("int4").code is INT[4]
    with pytest.raises(RecipeError, match="codebook4 has no fixed values"):
        _ = named("codebook4").grid


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="midrise2 has no 0"):
        Format("midrise2", midrise(2), Levels.of((8, "fp16")))
    with pytest.raises(ValueError, match="different blocks"):
        Format("int4", INT[4], Levels.of((8, "fp16")), Levels.of((16, "i4"), zeros=True))
