"""Formats: names, blocks, true stored bits and scales as they are read back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bitwright.core.format import Format, named, with_block
from bitwright.core.grid import E4M3, INT
from bitwright.errors import RecipeError

few = settings(max_examples=60, deadline=None)
scales = arrays(np.float32, 64, elements=st.floats(0, 2.0**100, width=32))
ordinary = arrays(np.float32, 64, elements=st.floats(2.0**-13, 60000.0, width=32))


def with_scale(scale: str) -> Format:
    return Format("int4", INT[4], 128, scale)  # type: ignore[arg-type]


STORED = [
    # name, options, rows, columns, bits counted by hand
    ("int4", {"group": 128}, 3, 256, 3 * 256 * 4 + 6 * 16),
    ("int4", {"group": 128, "symmetric": False}, 3, 256, 3 * 256 * 4 + 6 * (16 + 4)),
    ("int4", {"group": "channel"}, 5, 7, 5 * 32 + 5 * 16),  # 28 bits of codes a row, padded to 4 bytes
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
]


@pytest.mark.parametrize(("name", "options", "rows", "columns", "bits"), STORED)
def test_stored_bits_are_exact(name: str, options: dict, rows: int, columns: int, bits: int) -> None:
    assert named(name, **options).stored_bits(rows, columns) == bits


def test_stored_bits_in_larger_words() -> None:
    # 7 codes of 4 bits: 28 bits, one 32-bit word a row; 9 codes need two.
    assert named("int4", group="channel").stored_bits(2, 7, word=32) == 2 * 32 + 2 * 16
    assert named("int4", group="channel").stored_bits(2, 9, word=32) == 2 * 64 + 2 * 16


def test_names() -> None:
    assert [named(f"int{b}").bits for b in range(1, 9)] == list(range(1, 9))
    assert [named(f"codebook{b}").bits for b in range(1, 9)] == list(range(1, 9))
    assert named("codebook4").learned and not named("int4").learned
    assert named("int1").grid.values == (-0.5, 0.5)
    assert named("int1", symmetric=False).grid.values == (-1.0, 0.0)
    assert named("int4").zero == "none" and named("int4", symmetric=False).zero == "integer"
    assert (named("mxfp4").block, named("mxfp4").scale) == (32, "e8m0")
    assert (named("nvfp4").block, named("nvfp4").scale) == (16, "e4m3")
    assert named("fp8").block == "channel" and named("int4").block == 128
    assert with_block(named("int4"), 32).block == 32


@pytest.mark.parametrize(
    "name", ["int0", "int9", "int16", "int44", "int", "codebook16", "midrise", "INT4", "fp16", "", "4"]
)
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=r"no format is called .*Choose one of"):
        named(name)


def test_blocks() -> None:
    w = np.arange(24, dtype=np.float32).reshape(2, 12)
    assert named("int4", group=4).blocks(w)[1, 2].tolist() == [20, 21, 22, 23]
    assert named("int4", group="channel").blocks(w).shape == (2, 1, 12)
    assert named("int4", group="tensor").blocks(w).shape == (1, 1, 24)
    assert named("int4", group=4).fits(12) and not named("int4", group=5).fits(12)
    assert [named("int4", group=g).block_count(2, 12) for g in (4, "channel", "tensor")] == [6, 2, 1]


@few
@given(x=st.one_of(scales, ordinary))
def test_fp16_scales_are_torchs(x: np.ndarray) -> None:
    stored = torch.from_numpy(x.clip(0, 65504)).half().float().numpy()
    assert (with_scale("fp16").round_scale(x) == np.where(stored > 0, stored, 1)).all()


@few
@given(x=arrays(np.float32, 64, elements=st.floats(0, 2.0**127, width=32)))
def test_bf16_scales_are_torchs(x: np.ndarray) -> None:
    stored = torch.from_numpy(x.copy()).bfloat16().float().numpy()
    assert (with_scale("bf16").round_scale(x) == np.where(stored > 0, stored, 1)).all()


def test_bf16_ties_are_torchs() -> None:
    halfway = (np.arange(0x3F80, 0x4080, dtype=np.uint32) << 16) + 0x8000
    for nudge in (-1, 0, 1):
        x = (halfway.astype(np.int64) + nudge).astype(np.uint32).view(np.float32)
        assert (with_scale("bf16").round_scale(x) == torch.from_numpy(x).bfloat16().float().numpy()).all(), nudge


@few
@given(x=scales)
def test_e8m0_scales_are_the_nearest_powers_of_two(x: np.ndarray) -> None:
    stored = with_scale("e8m0").round_scale(x)
    mantissa, exponent = np.frexp(stored.astype(np.float64))
    assert (mantissa == 0.5).all() and (exponent - 1 >= -126).all()
    seen = x > 2.0**-126
    assert (np.abs(np.log2(x[seen].astype(np.float64)) - np.log2(stored[seen].astype(np.float64))) <= 0.5 + 1e-6).all()
    assert (stored[x == 0] == 1).all()


@few
@given(x=ordinary)
def test_e4m3_scales_with_their_unit_are_torchs(x: np.ndarray) -> None:
    format = named("nvfp4")
    unit = format.unit(x)
    assert unit == np.float32(unit), "the unit is stored in 32 bits"
    assert float(x.max()) / unit == pytest.approx(E4M3.high, rel=1e-6)
    stored = format.round_scale(x, unit)
    inner = torch.from_numpy(x / np.float32(unit)).clamp(0, 448).to(torch.float8_e4m3fn).float().numpy()
    inner = np.where(inner > 0, inner, 1)
    assert (stored == inner * np.float32(unit)).all()


def test_unit_of_zeros_and_of_other_scales_is_one() -> None:
    zero = np.zeros(4, np.float32)
    assert named("nvfp4").unit(zero) == 1.0 and named("int4").unit(zero + 3) == 1.0
    assert (named("nvfp4").round_scale(zero) == 1).all()


@pytest.mark.parametrize("scale", ["fp32", "fp16", "bf16", "e8m0", "e4m3"])
@few
@given(x=st.one_of(scales, ordinary))
def test_rounding_is_idempotent_positive_and_the_same_in_torch(scale: str, x: np.ndarray) -> None:
    format = with_scale(scale)
    unit = format.unit(x)
    once = format.round_scale(x, unit)
    assert once.dtype == np.float32 and (once > 0).all() and np.isfinite(once).all()
    assert (format.round_scale(once, unit) == once).all()
    t = torch.from_numpy(x.copy())
    assert format.unit(t) == format.unit(-x) == unit
    # The sign is kept: where the largest weight is positive, two's complement wants a negative scale.
    assert (format.round_scale(-x, unit)[x > 0] == -once[x > 0]).all()
    assert (format.round_scale(t, unit).numpy() == once).all()


def test_doc_example() -> None:
    assert math.isclose(named("int4", symmetric=False).stored_bits(512, 512) / 512**2, 4.15625)


def test_e8m0_at_its_ends_and_around_the_square_root() -> None:
    root = np.float32(math.sqrt(2))  # a little below the true root
    above = np.nextafter(root, np.float32(2))
    x = np.array([1e-45, 2.0**-127, 2.0**-126, 1.0, root, above, 2.0, 3.4e38], np.float32)
    assert with_scale("e8m0").round_scale(x).tolist() == [2.0**-126, 2.0**-126, 2.0**-126, 1, 1, 2, 2, 2.0**127]


def test_a_grid_without_zero_keeps_a_zero_scale() -> None:
    assert named("midrise4").round_scale(np.array([0.0, 1e-12, 0.5], np.float32)).tolist() == [0.0, 0.0, 0.5]
    assert named("int4").round_scale(np.array([0.0, 1e-12, 0.5], np.float32)).tolist() == [1.0, 1.0, 0.5]
