"""Error measures against direct float64 formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core import measure
from bitwright.core.code import Codebook
from bitwright.core.grid import E4M3, FP4, INT, TERNARY
from bitwright.core.measure import Error, Usage

seeds = st.integers(0, 2**32)

few = settings(max_examples=60, deadline=None)


def pair(seed: int, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 3, n).astype(np.float32)
    return x, (x + rng.normal(0, 0.1, n)).astype(np.float32)


@few
@given(seeds)
def test_formulas(seed: int) -> None:
    x, y = pair(seed)
    a, b = x.astype(np.float64), y.astype(np.float64)
    noise = ((a - b) ** 2).mean()
    assert measure.mse(x, y) == pytest.approx(noise, rel=1e-5)
    assert measure.sqnr(x, y) == pytest.approx(10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()), abs=1e-4)
    assert measure.psnr(x, y) == pytest.approx(10 * np.log10(np.abs(a).max() ** 2 / noise), abs=1e-4)
    assert measure.psnr(x, y, peak=7.0) == pytest.approx(10 * np.log10(49 / noise), abs=1e-4)
    assert measure.cosine(x, y) == pytest.approx((a @ b) / np.sqrt((a @ a) * (b @ b)), abs=1e-6)
    assert measure.mse(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(noise, rel=1e-5)


def test_the_peak_is_a_choice() -> None:
    x = np.array([-4.0, 1.0, 2.0], np.float32)
    y = np.array([-4.0, 1.0, 3.0], np.float32)
    assert measure.psnr(x, y) == pytest.approx(10 * math.log10(16 * 3))
    # A peak of the whole range, twice max|x| at most, adds at most 6.02 dB.
    assert measure.psnr(x, y, peak=8.0) - measure.psnr(x, y) == pytest.approx(20 * math.log10(2))
    # One outlier raises PSNR although no weight came back better.
    loud_x, loud_y = np.append(x, np.float32(100)), np.append(y, np.float32(100))
    assert measure.psnr(loud_x, loud_y) > measure.psnr(x, y) + 25


@few
@given(seeds, st.integers(1, 199))
def test_errors_add_over_pieces(seed: int, cut: int) -> None:
    x, y = pair(seed)
    whole, parts = Error.between(x, y), Error.between(x[:cut], y[:cut]) + Error.between(x[cut:], y[cut:])
    assert parts.count == whole.count == 200 and parts.peak == whole.peak
    for name in ("signal", "decoded", "noise", "mse", "sqnr", "cosine"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-5)
    assert whole + Error() == whole


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e-20, 1e20, 1e30, 3e38])
def test_no_square_is_lost(size: float) -> None:
    x = np.array([1, -1, 0.5, 0.25], np.float32) * np.float32(size)
    y = x * np.float32(0.5)
    for a, b in ((x, y), (torch.tensor(x), torch.tensor(y))):
        error = Error.between(a, b)
        assert error.sqnr == pytest.approx(20 * math.log10(2), rel=1e-3)
        assert error.cosine == pytest.approx(1.0, abs=1e-3) and error.mse > 0
    assert Error.between(x, np.zeros_like(x)).sqnr == 0.0


def test_edges() -> None:
    zero, one = np.zeros(3, np.float32), np.ones(3, np.float32)
    assert measure.sqnr(one, one) == measure.psnr(one, one) == math.inf
    assert measure.sqnr(zero, one) == -math.inf
    assert measure.cosine(zero, zero) == 1.0 and measure.cosine(zero, one) == 0.0
    assert measure.cosine(one, -one) == -1.0
    assert Error().mse == 0.0


@few
@given(seeds, st.sampled_from([1e-3, 0.1, 1.0, 10.0]))
def test_kl_is_never_negative_and_zero_for_equals(seed: int, step: float) -> None:
    rng = np.random.default_rng(seed)
    p = rng.normal(0, 3, (5, 50)).astype(np.float32)
    q = (p + rng.normal(0, step, p.shape)).astype(np.float32)
    a = torch.log_softmax(torch.from_numpy(p).double(), -1)
    b = torch.log_softmax(torch.from_numpy(q).double(), -1)
    exact = (a.exp() * (a - b)).sum(-1).numpy()
    np.testing.assert_allclose(measure.kl(p, q), exact, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        measure.kl(torch.from_numpy(p), torch.from_numpy(q)).numpy(), exact, rtol=1e-4, atol=1e-6
    )
    assert (measure.kl(p, q) > -1e-6).all()
    assert (measure.kl(p, p) == 0).all()
    # Adding a constant to all logits changes no distribution.
    np.testing.assert_allclose(measure.kl(p, p + np.float32(7)), 0, atol=1e-6)


def test_kl_with_masked_logits_and_large_logits() -> None:
    p = np.array([[0.0, math.log(3), -math.inf], [1e4, 0.0, 0.0]], np.float32)
    q = np.array([[0.0, 0.0, -math.inf], [1e4, 0.0, 0.0]], np.float32)
    expect = [0.75 * math.log(1.5) + 0.25 * math.log(0.5), 0.0]
    np.testing.assert_allclose(measure.kl(p, q), expect, atol=1e-6)
    # Where p has mass and q has none, the divergence is infinite, and says so.
    assert measure.kl(p[:1, :2], np.array([[0.0, -math.inf]], np.float32))[0] == math.inf


@few
@given(seeds)
def test_layer_error_is_the_mean_squared_output_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, x = rng.normal(size=(6, 9)), rng.normal(0.5, 1, (80, 9))
    back = np.round(w * 4) / 4
    direct = ((x @ w.T - x @ back.T) ** 2).sum(axis=1).mean()
    hessian = x.T @ x / 80
    assert measure.layer_error(w - back, hessian) == pytest.approx(direct, rel=1e-9)
    assert measure.layer_error(torch.from_numpy(w - back), torch.from_numpy(hessian)) == pytest.approx(direct, rel=1e-9)


def test_unique_values_and_bit_width() -> None:
    for n, bits in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (16, 4), (17, 5)]:
        x = np.arange(100, dtype=np.float32) % n
        assert measure.unique_values(x) == measure.unique_values(torch.from_numpy(x)) == n
        assert measure.bit_width(x) == bits


@few
@given(seeds)
def test_usage_counts_values_and_adds_over_pieces(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 1 << int(rng.integers(1, 5)), (7, 40)).astype(np.uint8)
    whole = Usage.of(codes, INT[4])
    values, counts = np.unique(codes, return_counts=True)
    share = counts / codes.size
    assert (whole.levels, whole.used, whole.total) == (16, len(values), 280)
    assert whole.entropy == pytest.approx(-(share * np.log2(share)).sum())
    assert (whole.counts == (Usage.of(codes[:3], INT[4]) + Usage.of(codes[3:], INT[4])).counts).all()
    assert (whole.counts == Usage.of(torch.from_numpy(codes), INT[4]).counts).all()


def test_usage_counts_more_codes_than_one_step_takes() -> None:
    codes = np.arange(measure.COUNTED + 5, dtype=np.uint32).astype(np.uint8)
    assert Usage.of(codes, INT[8]).counts.sum() == len(codes)


def test_levels_are_values_and_not_bit_patterns() -> None:
    """-0 is 0, and NaN is no level."""
    every = np.arange(256).astype(np.uint8)
    eight, four = Usage.of(every, E4M3), Usage.of(every[:16], FP4)
    assert (eight.levels, eight.used, eight.total) == (253, 253, 254)
    assert (four.levels, four.used, four.total, four.counts.max()) == (15, 15, 16, 2)
    assert Usage.of(every[:3], TERNARY).levels == 3
    assert Usage.of(every[:2], Codebook("codebook3", 3)).levels == 8


@pytest.mark.parametrize(("codes", "bits"), [([1] * 200, 0.0), ([0, 1] * 100, 1.0), ([0, 1, 2, 3] * 50, 2.0)])
def test_entropy_of_even_use(codes: list[int], bits: float) -> None:
    assert Usage.of(np.array(codes, np.uint8), INT[4]).entropy == pytest.approx(bits)


def test_spare_bits_are_those_that_no_level_in_use_needs() -> None:
    def spare(levels: int, weights: int = 256) -> int:
        return Usage.of((np.arange(weights) % levels).astype(np.uint8), INT[4]).spare

    assert [spare(n) for n in (16, 9, 8, 5, 4, 2, 1)] == [0, 0, 1, 1, 2, 3, 4]
    assert spare(4, weights=100) == 0  # so few weights say nothing


def test_usage_of_whole_numbers() -> None:
    found = Usage.whole(np.array([-128, -128, 5, 127], np.int8), -128, 127)
    assert (found.levels, found.used, found.counts[0], found.entropy) == (256, 3, 2, 1.5)
