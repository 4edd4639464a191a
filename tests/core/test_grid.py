"""Grids against their definitions, torch's own casts and the published tables."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bitwright.core.grid import E4M3, E5M2, FP4, INT, NF4, TERNARY, Grid, floating, midrise

GRIDS = [*INT.values(), *(midrise(b) for b in range(1, 9)), TERNARY, NF4, FP4, E4M3, E5M2]
EXACT = [g for g in GRIDS if g is not NF4]
SHUFFLED = Grid("shuffled", (0.25, -3.0, 1.0, 7.0, -0.5, 2.0, 1.5, -1.0))

few = settings(max_examples=12, deadline=None)
floats = arrays(np.float32, 64, elements=st.floats(-1e5, 1e5, width=32))
near = arrays(np.float32, 64, elements=st.floats(-9, 9, width=32))


def finite(grid: Grid) -> np.ndarray:
    values = np.array(grid.values, np.float32)
    return values[np.isfinite(values)]


def brute(grid: Grid, x: np.ndarray) -> np.ndarray:
    """The distance to the nearest grid value, by looking at all of them in float64."""
    return np.abs(x.astype(np.float64)[:, None] - finite(grid).astype(np.float64)).min(axis=1)


@pytest.mark.parametrize("grid", [*GRIDS, SHUFFLED], ids=lambda g: g.name)
@few
@given(x=st.one_of(floats, near))
def test_nearest_is_the_nearest_value(grid: Grid, x: np.ndarray) -> None:
    got = grid.decode(grid.nearest(x))
    distance = np.abs(x.astype(np.float64) - got.astype(np.float64))
    # A midpoint that float32 cannot hold may move the choice by half a step of float32 there, no more.
    slack = 0 if grid is not NF4 else 2e-7
    # x - low is rounded to float32 for grids whose values are halves.
    slack += 1.2e-7 * 256 if grid.uniform and grid.low % 1 else 0
    assert (distance <= brute(grid, x) + slack).all()


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: g.name)
def test_a_grid_value_is_its_own_nearest_and_codes_come_back(grid: Grid) -> None:
    values = finite(grid)
    assert (grid.round(values) == values).all()
    codes = grid.nearest(values)
    assert codes.dtype == np.uint8 and codes.max() < 2**grid.bits
    assert (grid.decode(codes) == values).all()


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: g.name)
def test_out_of_range_saturates(grid: Grid) -> None:
    x = np.array([-1e30, -grid.high * 3 - 1, grid.high * 3 + 1, 1e30], np.float32)
    expect = np.array([grid.low, grid.low, grid.high, grid.high], np.float32)
    assert (grid.decode(grid.nearest(x)) == expect).all()
    assert (grid.round(x) == expect).all()


@pytest.mark.parametrize("grid", EXACT, ids=lambda g: g.name)
def test_an_exact_tie_goes_to_the_even_one(grid: Grid) -> None:
    """The even integer where the grid holds integers (round half to even); else the even code, as IEEE 754 rounds."""
    order = sorted((v, c) for c, v in enumerate(grid.values) if v == v and not (v == 0 and math.copysign(1, v) < 0))
    for (a, code_a), (b, code_b) in itertools.pairwise(order):
        middle = np.array([(a + b) / 2], np.float32)
        assert float(middle[0]) == (a + b) / 2, "the midpoint is exact, so this is a real tie"
        got = int(grid.nearest(middle)[0])
        integers = grid.uniform and grid.low % 1 == 0
        even = [c for v, c in ((a, code_a), (b, code_b)) if (v if integers else c) % 2 == 0]
        # FP4's and FP8's smallest magnitudes meet at zero, whose code is even; no pair is without an even one there.
        assert [got] == even, (grid.name, a, b)


@pytest.mark.parametrize("grid", [*GRIDS, SHUFFLED], ids=lambda g: g.name)
@few
@given(x=st.one_of(floats, near))
def test_numpy_and_torch_agree_to_the_bit(grid: Grid, x: np.ndarray) -> None:
    t = torch.from_numpy(x.copy())
    assert (grid.nearest(t).numpy() == grid.nearest(x)).all()
    assert (grid.round(t).numpy() == grid.round(x)).all()
    codes = grid.nearest(x)
    assert (grid.decode(torch.from_numpy(codes)).numpy() == grid.decode(codes)).all()


@pytest.mark.parametrize(("grid", "dtype"), [(E4M3, torch.float8_e4m3fn), (E5M2, torch.float8_e5m2)])
def test_fp8_patterns_are_torchs(grid: Grid, dtype: torch.dtype) -> None:
    theirs = torch.arange(256, dtype=torch.uint8).view(dtype).float().numpy()
    ours = np.array(grid.values, np.float32)
    usable = np.isfinite(theirs)
    assert (np.isfinite(ours) == usable).all()
    assert (ours[usable] == theirs[usable]).all()
    assert (np.signbit(ours[usable]) == np.signbit(theirs[usable])).all()


@pytest.mark.parametrize(("grid", "dtype"), [(E4M3, torch.float8_e4m3fn), (E5M2, torch.float8_e5m2)])
def test_fp8_rounding_is_torchs_cast(grid: Grid, dtype: torch.dtype) -> None:
    values = np.unique(finite(grid))
    ties = (values[1:] + values[:-1]) / 2
    rng = np.random.default_rng(0)
    random = np.float32(2.0) ** rng.uniform(-20, math.log2(grid.high), 20000).astype(np.float32)
    x = np.concatenate(
        [values, ties, np.nextafter(ties, np.float32(9e9)), np.nextafter(ties, np.float32(-9e9)), random, -random]
    )
    x = np.clip(x.astype(np.float32), -grid.high, grid.high)
    assert (grid.round(x) == torch.from_numpy(x).to(dtype).float().numpy()).all()


def test_nf4_is_the_published_table() -> None:
    # QLoRA (arXiv 2305.14314), appendix E.
    published = [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ]  # fmt: skip
    assert np.abs(np.array(NF4.values) - published).max() < 1e-6
    assert NF4.zero_code == 7


def test_fp4_is_ocp_mx_e2m1() -> None:
    half = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert list(FP4.values) == half + [-v for v in half]
    assert FP4.bits == 4 and FP4.zero_code == 0
    x = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, -0.25, -5.0], np.float32)
    assert FP4.round(x).tolist() == [0, 1, 1, 2, 2, 4, 4, 0, -4]


def test_ternary_and_integers() -> None:
    assert TERNARY.bits == 2 and TERNARY.uniform and TERNARY.zero_code == 1
    assert TERNARY.round(np.array([-9, -0.6, -0.5, 0.4, 0.6, 9], np.float32)).tolist() == [-1, -1, 0, 0, 1, 1]
    for bits, grid in INT.items():
        assert (grid.low, grid.high, grid.bits) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, bits)
        assert grid.values == tuple(range(-(2 ** (bits - 1)), 2 ** (bits - 1)))


@pytest.mark.parametrize("bits", range(1, 9))
def test_midrise_is_even_and_symmetric(bits: int) -> None:
    values = midrise(bits).values
    assert len(values) == 2**bits and values == tuple(-v for v in reversed(values))
    assert {b - a for a, b in itertools.pairwise(values)} <= {1.0}
    assert midrise(bits).zero_code is None


def test_floating_specials() -> None:
    assert math.isnan(E4M3.values[0x7F]) and math.isnan(E4M3.values[0xFF]) and E4M3.high == 448
    assert math.isnan(E5M2.values[0x7C]) and E5M2.high == 57344
    all_numbers = floating("e3m0", 3, 0, bias=3, special="none")
    assert all_numbers.values[:8] == (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
