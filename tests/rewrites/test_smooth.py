"""SmoothQuant: the product stays the same, and channels with outliers cost less."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.formats import named
from bitwright.core.observe import affine
from bitwright.methods import rtn
from bitwright.rewrites import smooth
from bitwright.rewrites.equalize import column_ranges, multiply_columns

few = settings(max_examples=30, deadline=None)
INT8 = named("int8", group="channel", scale="fp32")


def outliers(seed: int, tokens: int = 300, width: int = 48) -> np.ndarray:
    """A few channels a hundred times as large as the others, as in transformers."""
    rng = np.random.default_rng(seed)
    size = np.where(rng.random(width) < 0.08, 60.0, 1.0)
    size[0] = 100.0
    return (rng.normal(size=(tokens, width)) * size).astype(np.float32)


@few
@given(st.integers(0, 2**32), st.floats(0, 1))
def test_formula_and_unchanged_product(seed: int, alpha: float) -> None:
    x, rng = outliers(seed), np.random.default_rng(seed)
    ws = [rng.normal(size=(n, 48)).astype(np.float32) for n in (8, 12)]
    peak = np.abs(x).max(axis=0)
    s = smooth.factors(peak, ws, alpha)
    column = np.maximum(np.abs(ws[0]).max(axis=0), np.abs(ws[1]).max(axis=0))
    np.testing.assert_allclose(s, peak**alpha / column ** (1 - alpha), rtol=1e-4)
    for w in ws:
        wanted = x @ w.T
        found = (x / s) @ multiply_columns(w, s).T
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
    on_torch = smooth.factors(torch.from_numpy(peak), [torch.from_numpy(w) for w in ws], alpha)
    np.testing.assert_allclose(on_torch.numpy(), s, rtol=1e-5)


def test_half_shares_evenly() -> None:
    peak, w = np.array([16.0, 1.0], np.float32), np.array([[1.0, 4.0], [-0.5, 2.0]], np.float32)
    s = smooth.factors(peak, [w])
    np.testing.assert_allclose(peak / s, column_ranges(multiply_columns(w, s), 2))


def test_dead_channels() -> None:
    s = smooth.factors(np.array([0.0, 2, 2], np.float32), [np.array([[1.0, 0, 2]], np.float32)])
    assert s[:2].tolist() == [1, 1] and np.isfinite(s).all()


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_outliers_cost_less(library: str) -> None:
    x = outliers(0)
    w = np.random.default_rng(1).normal(size=(32, 48)).astype(np.float32)
    give = torch.from_numpy if library == "torch" else np.asarray

    def error(s: np.ndarray) -> float:
        q = affine(float((x / s).min()), float((x / s).max())).fake(x / s)
        return float(((q @ np.asarray(rtn.quantize(multiply_columns(w, s), INT8).decode()).T - x @ w.T) ** 2).sum())

    s = np.asarray(smooth.factors(give(np.abs(x).max(axis=0)), [give(w)], 0.5))
    assert error(np.ones(48, np.float32)) > 3 * error(s)
