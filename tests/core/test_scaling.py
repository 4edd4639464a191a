"""Levels of scales: numbers as they are read back, factors, and bits."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bitwright.core.formats import named
from bitwright.core.grid import E4M3
from bitwright.core.scaling import NUMBERS, Levels, rows_of
from bitwright.errors import RecipeError

few = settings(max_examples=60, deadline=None)
scales = arrays(np.float32, 64, elements=st.floats(0, 2.0**100, width=32))
ordinary = arrays(np.float32, 64, elements=st.floats(2.0**-13, 60000.0, width=32))
size = st.floats(2.0**-60, 2.0**60, width=32)
signed = arrays(np.float32, (3, 32), elements=st.one_of(size, size.map(lambda x: -x), st.just(0.0)))
anything = arrays(np.float32, (3, 32), elements=st.floats(-(2.0**127), 2.0**127, width=32))


def one(type: str) -> Levels:
    return Levels.of((128, type))


STACKS = [
    *(one(type) for type in ("fp32", "fp16", "bf16", "e8m0", "e4m3", "i8")),
    Levels.of((16, "e4m3"), ("tensor", "fp32")),
    Levels.of((16, "u4"), (256, "fp16")),
    Levels.of((32, "u6"), (256, "fp16")),
    Levels.of((16, "i6"), (256, "fp16")),
    Levels.of((16, "i8"), ("channel", "bf16")),
    Levels.of((16, "u4"), (64, "u6"), ("tensor", "fp32")),
]


def label(levels: Levels) -> str:
    return "-".join(f"{level.type}.{level.block}" for level in levels.levels)


@few
@given(x=st.one_of(scales, ordinary))
def test_fp16_scales_are_torchs(x: np.ndarray) -> None:
    stored = torch.from_numpy(x.clip(0, 65504)).half().float().numpy()
    assert (one("fp16").round(x) == np.where(stored > 0, stored, 1)).all()


@few
@given(x=arrays(np.float32, 64, elements=st.floats(0, 2.0**127, width=32)))
def test_bf16_scales_are_torchs(x: np.ndarray) -> None:
    stored = torch.from_numpy(x.copy()).bfloat16().float().numpy()
    assert (one("bf16").round(x) == np.where(stored > 0, stored, 1)).all()


def test_bf16_ties_are_torchs() -> None:
    halfway = (np.arange(0x3F80, 0x4080, dtype=np.uint32) << 16) + 0x8000
    for nudge in (-1, 0, 1):
        x = (halfway.astype(np.int64) + nudge).astype(np.uint32).view(np.float32)
        assert (one("bf16").round(x) == torch.from_numpy(x).bfloat16().float().numpy()).all(), nudge


@few
@given(x=scales)
def test_e8m0_scales_are_the_nearest_powers_of_two(x: np.ndarray) -> None:
    stored = one("e8m0").round(x)
    mantissa, exponent = np.frexp(stored.astype(np.float64))
    assert (mantissa == 0.5).all() and (exponent - 1 >= -126).all()
    seen = x > 2.0**-126
    assert (np.abs(np.log2(x[seen].astype(np.float64)) - np.log2(stored[seen].astype(np.float64))) <= 0.5 + 1e-6).all()
    assert (stored[x == 0] == 1).all()


@few
@given(x=ordinary)
def test_nvfp4_scales_are_torchs(x: np.ndarray) -> None:
    levels = named("nvfp4").scale
    x = x.reshape(4, 16)
    (unit,) = levels.fit(x)
    assert unit.shape == (1, 1) and unit.dtype == np.float32
    assert float(x.max()) / unit.item() == pytest.approx(E4M3.high, rel=1e-6)
    inner = torch.from_numpy(x / unit).clamp(0, 448).to(torch.float8_e4m3fn).float().numpy()
    assert (levels.round(x, (unit,)) == np.where(inner > 0, inner, 1) * unit).all()


@pytest.mark.parametrize("levels", STACKS, ids=label)
@few
@given(x=signed)
def test_rounding_is_idempotent_and_the_same_in_torch(levels: Levels, x: np.ndarray) -> None:
    if not levels.signed:
        x = np.abs(x)
    outer = levels.fit(x)
    once = levels.round(x, outer)
    assert once.dtype == np.float32 and once.shape == x.shape
    assert (once != 0).all() and np.isfinite(once).all()
    assert (levels.round(once, outer) == once).all()
    t = torch.from_numpy(x.copy())
    theirs = levels.fit(t)
    assert [f.tolist() for f in theirs] == [f.tolist() for f in outer]
    assert (levels.round(t, theirs).numpy() == once).all()


@pytest.mark.parametrize("type", ["fp32", "fp16", "bf16", "e8m0", "e4m3"])
@few
@given(x=st.one_of(scales, ordinary))
def test_floats_keep_the_sign(type: str, x: np.ndarray) -> None:
    # Where the largest weight is positive, two's complement wants a negative scale.
    assert (one(type).round(-x)[x > 0] == -one(type).round(x)[x > 0]).all()


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("levels", STACKS, ids=label)
@few
@given(x=anything)
def test_never_nan(levels: Levels, zeros: bool, x: np.ndarray) -> None:
    levels = replace(levels, zeros=zeros)
    outer = levels.fit(x)
    assert all(np.isfinite(factor).all() and (factor != 0).all() for factor in outer)
    back = levels.round(x, outer)
    assert np.isfinite(back).all() and (zeros or (back != 0).all())


@pytest.mark.parametrize("levels", [s for s in STACKS if len(s.levels) == 2 and s.type[0] in "ui"], ids=label)
@few
@given(x=arrays(np.float32, (3, 32), elements=st.floats(1.0, 60000.0, width=32)), sign=st.sampled_from([1, -1]))
def test_integers_of_a_factor(levels: Levels, x: np.ndarray, sign: int) -> None:
    """Scales are whole multiples of their factor, half of it away at most, and the largest is nearly exact."""
    number = NUMBERS[levels.type]
    x = np.float32(sign) * x
    outer = levels.fit(x)
    factor = np.repeat(outer[0], 32 // outer[0].shape[1], axis=1).astype(np.float64)
    whole = levels.round(x, outer) / factor
    assert np.abs(whole - np.round(whole)).max() < 1e-4
    assert whole.min() >= number.low - 1e-4 and whole.max() <= number.high + 1e-4 and (np.abs(whole) > 0.9).all()
    off = np.abs(whole - x / factor)
    assert off[np.abs(x / factor) >= 0.5].max() < 0.54, "more than half a step, and a factor rounded to fp16"
    assert np.abs(whole).max() == pytest.approx(max(-number.low, number.high), abs=1e-3)


def test_the_factor_takes_the_sign_of_the_extreme() -> None:
    x = np.array([[1.0, -8.0, 4.0, 2.0]], np.float32)
    (unsigned,) = Levels.of((32, "u6"), (128, "fp32")).fit(x)
    assert unsigned.tolist() == [[np.float32(-8 / 63).item()]], "minima are stored as positive numbers"
    (signed,) = Levels.of((32, "i6"), (128, "fp32")).fit(x)
    assert signed.tolist() == [[0.25]], "-32 reaches furthest"
    assert Levels.of((32, "i6"), (128, "fp32")).round(x, (signed,)).tolist() == [[1.0, -8.0, 4.0, 2.0]]


def test_zeros() -> None:
    none = np.zeros((1, 2), np.float32)
    shift = Levels.of((32, "u6"), (64, "fp16"), zeros=True)
    assert shift.round(none, shift.fit(none)).tolist() == [[0.0, 0.0]] and shift.fit(none)[0].tolist() == [[1.0]]
    scale = Levels.of((32, "u6"), (64, "fp16"))
    assert scale.round(none, scale.fit(none)).tolist() == [[1.0, 1.0]]
    # A block that is tiny beside its neighbour keeps the smallest scale there is.
    tiny = np.array([[63.0, 0.01]], np.float32)
    assert scale.round(tiny, scale.fit(tiny)).tolist() == [[63.0, 1.0]]


def test_three_levels() -> None:
    levels = Levels.of((16, "u4"), (64, "u6"), ("channel", "fp16"))
    x = np.exp(np.random.default_rng(0).normal(size=(3, 16))).astype(np.float32)
    outer = levels.fit(x)
    assert [factor.shape for factor in outer] == [(3, 4), (3, 1)]
    inner = np.repeat(outer[0], 4, axis=1)
    assert np.allclose(levels.round(x, outer) / inner, np.round(levels.round(x, outer) / inner), atol=1e-4)
    assert np.allclose(outer[0] / outer[1], np.round(outer[0] / outer[1]), atol=1e-4)
    assert levels.bits(3, 256) == 3 * (16 * 4 + 4 * 6 + 16)


def test_a_missing_factor_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 factors for 2 levels"):
        named("nvfp4").scale.round(np.ones((1, 1), np.float32))


def test_factors_of_rows() -> None:
    levels = Levels.of((16, "i6"), (64, "fp16"))
    x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    outer = levels.fit(x)
    assert (levels.round(x[1:3], rows_of(outer, 1, 3)) == levels.round(x, outer)[1:3]).all()
    shared = (np.ones((1, 1), np.float32),)
    assert rows_of(shared, 1, 3)[0] is shared[0]


def test_numbers() -> None:
    assert {name: NUMBERS[name].bits for name in ("fp32", "fp16", "bf16", "e8m0", "e4m3", "u4", "i6", "i8", "one")} == {
        "fp32": 32, "fp16": 16, "bf16": 16, "e8m0": 8, "e4m3": 8, "u4": 4, "i6": 6, "i8": 8, "one": 0,
    }  # fmt: skip
    assert [NUMBERS[name].signed for name in ("fp16", "bf16", "i6", "e8m0", "e4m3", "u6")] == [True] * 3 + [False] * 3
    x = np.array([-99.0, -2.5, -0.4, 0.6, 99.0], np.float32)
    assert NUMBERS["i4"].round(x).tolist() == [-8, -2, 0, 1, 7]
    assert NUMBERS["u4"].round(x).tolist() == [0, 0, 0, 1, 15]
    assert NUMBERS["one"].round(x).tolist() == [1] * 5


def test_what_cannot_be() -> None:
    with pytest.raises(RecipeError, match=r"no type of scale is called 'fp8'.*Choose one of: fp32, fp16"):
        Levels.of((32, "fp8"))
    for inner, outer in [(32, 100), ("channel", 32), ("tensor", "channel"), ("tensor", "tensor"), (32, 16)]:
        with pytest.raises(ValueError, match="do not hold"):
            Levels.of((inner, "u6"), (outer, "fp16"))


def test_e8m0_at_its_ends_and_around_the_square_root() -> None:
    root = np.float32(math.sqrt(2))  # a little below the true root
    above = np.nextafter(root, np.float32(2))
    x = np.array([1e-45, 2.0**-127, 2.0**-126, 1.0, root, above, 2.0, 3.4e38], np.float32)
    assert one("e8m0").round(x).tolist() == [2.0**-126, 2.0**-126, 2.0**-126, 1, 1, 2, 2, 2.0**127]


def test_a_grid_without_zero_keeps_a_zero_scale() -> None:
    assert named("midrise4").scale.round(np.array([0.0, 1e-12, 0.5], np.float32)).tolist() == [0.0, 0.0, 0.5]
    assert named("int4").scale.round(np.array([0.0, 1e-12, 0.5], np.float32)).tolist() == [1.0, 1.0, 0.5]
