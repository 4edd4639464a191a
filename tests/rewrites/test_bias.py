"""Bias correction: the mean of the output comes back, and the analytic means are those of samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.formats import named
from bitwright.methods import rtn
from bitwright.rewrites import bias

few = settings(max_examples=40, deadline=None)


@few
@given(st.integers(0, 2**32))
def test_the_mean_output_is_exact_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(7, 24)).astype(np.float32)
    x = np.maximum(rng.normal(rng.normal(size=24), 1, (300, 24)), 0).astype(np.float32)
    q = np.asarray(rtn.quantize(w, named("int3", group="channel")).decode())
    delta = bias.correction(q - w, x.mean(axis=0))
    np.testing.assert_allclose((x @ q.T).mean(axis=0) + delta, (x @ w.T).mean(axis=0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        bias.empirical((x @ w.T).mean(axis=0), (x @ q.T).mean(axis=0)), delta, rtol=1e-3, atol=1e-4
    )
    on_torch = bias.correction(torch.from_numpy(q - w), torch.from_numpy(x.mean(axis=0)))
    np.testing.assert_allclose(on_torch.numpy(), delta, rtol=1e-4, atol=1e-5)
    before, after = (((x @ q.T + d - x @ w.T) ** 2).mean() for d in (0, delta))
    assert after <= before * 1.00001


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolutions(groups: int) -> None:
    """A mean for each channel stands for all kernel positions; a mean for each unfolded input is exact with padding."""
    g = torch.Generator().manual_seed(groups)
    x = torch.rand(16, 4, 9, 9, generator=g)
    w = torch.randn(8, 4 // groups, 3, 3, generator=g)
    q = w + 0.1 * torch.randn(w.shape, generator=g)
    error = (q - w).reshape(8, -1)
    for padding in (0, 1):
        wanted, found = (F.conv2d(x, k, padding=padding, groups=groups).mean(dim=(0, 2, 3)) for k in (w, q))
        unfolded = F.unfold(x, 3, padding=padding).mean(dim=(0, 2))
        torch.testing.assert_close(found + bias.correction(error, unfolded, groups), wanted, rtol=1e-4, atol=1e-5)
        per_channel = found + bias.correction(error, x.mean(dim=(0, 2, 3)), groups)
        assert (per_channel - wanted).abs().max() < 0.5 * (found - wanted).abs().max()


@pytest.mark.parametrize("top", [math.inf, 6.0])
def test_clipped_normal_is_the_mean_of_samples(top: float) -> None:
    rng = np.random.default_rng(0)
    beta, gamma = np.array([-2, -0.5, 0, 0.5, 3, 7], np.float32), np.array([1, -2, 1, 0.1, 2, 1.5], np.float32)
    z = rng.normal(size=(2_000_000, 1)) * np.abs(gamma) + beta
    found = bias.clipped_normal(beta, gamma, high=top)
    np.testing.assert_allclose(found, np.clip(z, 0, top).mean(axis=0), atol=6e-3)
    np.testing.assert_array_equal(bias.clipped_normal(torch.from_numpy(beta), torch.from_numpy(gamma), high=top), found)


@few
@given(st.floats(-8, 8), st.floats(0.01, 8))
def test_the_formula_of_the_paper(beta: float, gamma: float) -> None:
    density = math.exp(-((beta / gamma) ** 2) / 2) / math.sqrt(2 * math.pi)
    below = 0.5 * (1 + math.erf(-beta / gamma / math.sqrt(2)))
    wanted = gamma * density + beta * (1 - below)
    found = bias.clipped_normal(np.array([beta]), np.array([gamma]))
    assert float(found[0]) == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_limits() -> None:
    one = np.ones(3, np.float32)
    assert bias.clipped_normal(np.array([-1.0, 2, 9], np.float32), 0 * one, high=6.0).tolist() == [0, 2, 6]
    far = bias.clipped_normal(np.array([-50.0, 50, 3], np.float32), one)
    assert far[0] == 0 and far[1] == 50
    assert bias.clipped_normal(one, one, -math.inf).tolist() == [1, 1, 1]
