"""Calibration records merge like the data they saw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.stats import Stats, add_gram, mirror

few = settings(max_examples=60, deadline=None)


def data(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.3, 2.0, (n, d)).astype(np.float32)


@few
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**32))
def test_sum_of_records_is_the_record_of_all(n: int, m: int, d: int, seed: int) -> None:
    a, b = data(n, d, seed), data(m, d, seed + 1)
    merged, whole = Stats.of(a) + Stats.of(b), Stats.of(np.concatenate([a, b]))
    assert merged.n == whole.n == n + m
    np.testing.assert_allclose(merged.moment, whole.moment, rtol=1e-5, atol=1e-3)


def test_against_plain_float64_formulas() -> None:
    x = data(500, 7, 3)
    wide = x.astype(np.float64)
    for s in (Stats.of(x), Stats.of(torch.from_numpy(x))):
        assert s.n == 500
        np.testing.assert_allclose(np.asarray(s.hessian), wide.T @ wide / 500, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(np.asarray(s.power), (wide**2).mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("d", [1, 127, 128, 300, 1100])
def test_strips_make_the_whole_matrix_in_either_library(d: int) -> None:
    x, y = data(20, d, 1), data(30, d, 2)
    both = np.concatenate([x, y]).astype(np.float64)
    for kind in (np.asarray, torch.from_numpy):
        upper = add_gram(kind(y), add_gram(kind(x)))
        whole = np.asarray(mirror(upper))
        np.testing.assert_allclose(whole, both.T @ both, rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(whole, whole.T, rtol=1e-5, atol=1e-3)


def test_bfloat16_inputs_give_float32_records() -> None:
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    s = Stats.of(x)
    assert s.moment.dtype == torch.float32
    exact = x.double().T @ x.double()
    assert (s.moment - exact).abs().max() <= exact.abs().max() * 1e-6
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("d", [96, 576])
def test_moments_of_bfloat16_inputs_stay_definite(d: int) -> None:
    """Directions that inputs hardly use: a moment rounded to bfloat16 would make their eigenvalues negative."""
    rng = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(d, d, generator=rng)).Q
    x = (torch.randn(4096, d, generator=rng) * torch.logspace(0, -3, d) @ turn).to(torch.bfloat16)
    moment = Stats.of(x).moment.double()
    mean = float(moment.diagonal().mean())
    assert float(torch.linalg.eigvalsh(moment).min()) > 0
    rounded = (x.T @ x).double()
    assert float(torch.linalg.eigvalsh((rounded + rounded.T) / 2).min()) < -1e-3 * mean  # what it was before


def test_squares_alone_are_a_record_that_says_so() -> None:
    power = np.float32([4, 0, 0.25])
    for squares in (power, torch.from_numpy(power)):
        s = Stats.diagonal(squares)
        assert s.apart and (s + s).apart
        np.testing.assert_array_equal(np.asarray(s.hessian), np.diag(power))
        np.testing.assert_array_equal(np.asarray((s + s).power), power)
    assert not Stats.of(data(4, 3, 1)).apart
