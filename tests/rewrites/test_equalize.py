"""Equalization: the function stays the same, the ranges become alike, and quantization then costs less."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.formats import named
from bitwright.core.observe import affine
from bitwright.methods import rtn
from bitwright.rewrites import equalize as eq

few = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32)
TENSOR = named("int8", group="tensor", scale="fp32")
CHANNEL = named("int4", group="channel", scale="fp32")


def uneven(rng: np.random.Generator, out: int, columns: int, spread: float = 1.5) -> np.ndarray:
    """A matrix whose rows differ in size, as those after batch norm is folded do."""
    return (rng.normal(size=(out, columns)) * np.exp(rng.normal(0, spread, (out, 1)))).astype(np.float32)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


@few
@given(seeds)
def test_a_pair_gets_equal_ranges_and_computes_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    w1, b1, w2 = uneven(rng, 16, 8), rng.normal(size=16).astype(np.float32), uneven(rng, 5, 16).copy()
    s = eq.pair(eq.row_ranges(w1), eq.column_ranges(w2, 16))
    v1, v2 = eq.divide_rows(w1, s), eq.multiply_columns(w2, s)
    both = np.sqrt(eq.row_ranges(w1) * eq.column_ranges(w2, 16))
    np.testing.assert_allclose(eq.row_ranges(v1), both, rtol=1e-5)
    np.testing.assert_allclose(eq.column_ranges(v2, 16), both, rtol=1e-5)
    x = rng.normal(size=(8, 30)).astype(np.float32)
    before = w2 @ relu(w1 @ x + b1[:, None])
    after = v2 @ relu(v1 @ x + eq.divide_rows(b1, s)[:, None])
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4 * np.abs(before).max())


@few
@given(seeds)
def test_one_producer_and_one_consumer_are_a_pair_up_to_a_constant(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = np.exp(rng.normal(size=(2, 12))).astype(np.float32)
    s, p = eq.factors([a], [b]), eq.pair(a, b)
    np.testing.assert_allclose(s / s[0], p / p[0], rtol=1e-4)
    assert np.log(s).mean() == pytest.approx(0, abs=1e-5)


@few
@given(seeds, st.integers(1, 3), st.integers(0, 3), st.integers(0, 2))
def test_factors_are_the_flattest(seed: int, producers: int, consumers: int, tensors: int) -> None:
    """No other factors make the logarithms of all ranges vary less."""
    rng = np.random.default_rng(seed)
    written = np.exp(rng.normal(size=(producers + tensors, 9))).astype(np.float32)
    read = np.exp(rng.normal(size=(consumers, 9))).astype(np.float32)

    def unevenness(s: np.ndarray) -> float:
        return sum(np.log(r / s).var() for r in written) + sum(np.log(r * s).var() for r in read)

    s = eq.factors(list(written[:producers]), list(read), list(written[producers:]))
    best = unevenness(s)
    for _ in range(10):
        assert best <= unevenness(s * np.exp(rng.normal(0, 0.05, 9))) + 1e-5
    t = eq.factors(*([torch.from_numpy(r) for r in rows] for rows in (written[:producers], read, written[producers:])))
    np.testing.assert_allclose(t.numpy(), s, rtol=1e-5)


def test_dead_channels_and_limits() -> None:
    a, b = np.array([0.0, 1, 1, 1e-9], np.float32), np.array([1.0, 0, 4, 1e9], np.float32)
    for s in (eq.factors([a], [b]), eq.factors([a, a], [b], limit=3.0), eq.balance_activations([a], [b])):
        assert np.isfinite(s).all() and s[0] == s[1] == 1
    s = eq.factors([a], [b], limit=3.0)
    assert s.min() == pytest.approx(1 / 3) and s.max() == pytest.approx(3)
    assert eq.pair(a, b)[:2].tolist() == [1, 1]
    np.testing.assert_array_equal(eq.factors([0 * a], [0 * b]), np.ones(4))
    half = eq.factors([np.array([2.0, 0], np.float32), np.array([8.0, 2], np.float32)], [])
    assert np.isfinite(half).all(), "a range of 0 has no say, the other producer has"


def test_a_residual_stream_of_convolutions_computes_the_same() -> None:
    """Two producers meet in an addition; a plain, a grouped and a depthwise convolution read the sum."""
    g = torch.Generator().manual_seed(0)

    def weights(out: int, fan: int, spread: float = 1.0) -> torch.Tensor:
        size = torch.exp(torch.randn(out, 1, generator=g) * spread)
        return torch.randn(out, fan, generator=g) * size

    m = {
        "a": weights(8, 3 * 9),
        "b": weights(8, 3 * 9),
        "plain": weights(6, 8 * 9),
        "grouped": weights(4, 4 * 9),
        "depthwise": weights(8, 9),
    }
    bias = torch.randn(8, generator=g)
    x = torch.randn(2, 3, 10, 10, generator=g)

    def run(m: dict[str, Any], bias: torch.Tensor) -> list[torch.Tensor]:
        shape = {"a": (8, 3), "b": (8, 3), "plain": (6, 8), "grouped": (4, 4), "depthwise": (8, 1)}
        k = {name: w.reshape(*shape[name], 3, 3) for name, w in m.items()}
        y = F.conv2d(x, k["a"], bias, padding=1).relu() + F.conv2d(x, k["b"], padding=1)
        y = F.max_pool2d(y.relu(), 2)
        return [F.conv2d(y, k["plain"]), F.conv2d(y, k["grouped"], groups=2), F.conv2d(y, k["depthwise"], groups=8)]

    axis = eq.Axis(("a", "b"), ("plain", "grouped", "depthwise"), {"grouped": 2, "depthwise": 8})
    (s,) = eq.equalize(m, [axis])
    new = {name: eq.divide_rows(m[name], s) for name in axis.producers}
    new |= {name: eq.multiply_columns(m[name], s, axis.groups.get(name, 1)) for name in axis.consumers}
    for before, after in zip(run(m, bias), run(new, eq.divide_rows(bias, s)), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)
    assert s.max() / s.min() > 2


def test_column_ranges_of_grouped_convolutions() -> None:
    w = np.arange(1, 4 * 2 * 3 + 1, dtype=np.float32).reshape(4, 6)  # 2 groups, 2 of 4 inputs each, kernel 3
    wanted = [max(w[r, j * 3 : j * 3 + 3].max() for r in rows) for rows in ((0, 1), (2, 3)) for j in (0, 1)]
    assert eq.column_ranges(w, 4, 2).tolist() == wanted
    s = np.array([1.0, 10, 100, 1000], np.float32)
    scaled = eq.multiply_columns(w, s, 2)
    np.testing.assert_array_equal(scaled[3], w[3] * [100, 100, 100, 1000, 1000, 1000])


def test_a_chain_converges_and_quantizes_better() -> None:
    """A network whose channels someone has scaled at random comes back to where all are alike."""
    rng = np.random.default_rng(0)
    m = {name: uneven(rng, 24, 24, 0) for name in "abcd"}
    axes = [eq.Axis((p,), (c,)) for p, c in ("ab", "bc", "cd")]
    for axis in axes:
        s = np.exp(rng.normal(0, 1.5, 24)).astype(np.float32)
        m[axis.producers[0]] = eq.divide_rows(m[axis.producers[0]], s)
        m[axis.consumers[0]] = eq.multiply_columns(m[axis.consumers[0]], s)
    total = eq.equalize(m, axes)
    new = dict(m)
    for axis, s in zip(axes, total, strict=True):
        new[axis.producers[0]] = eq.divide_rows(new[axis.producers[0]], s)
        new[axis.consumers[0]] = eq.multiply_columns(new[axis.consumers[0]], s)
    for axis in axes:  # a fixed point: nothing is left to gain on any axis
        again = eq.factors([eq.row_ranges(new[axis.producers[0]])], [eq.column_ranges(new[axis.consumers[0]], 24)])
        np.testing.assert_allclose(again, 1, rtol=2e-3)
    x = rng.normal(size=(24, 200)).astype(np.float32)

    def run(m: dict[str, np.ndarray]) -> np.ndarray:
        y = x
        for name in "abcd":
            y = relu(m[name] @ y)
        return y

    wanted = run(m)
    np.testing.assert_allclose(run(new), wanted, rtol=1e-2, atol=1e-4 * wanted.max())

    def error(m: dict[str, np.ndarray]) -> float:
        return float(((run({name: rtn.quantize(w, TENSOR).decode() for name, w in m.items()}) - wanted) ** 2).mean())

    assert error(new) < 0.2 * error(m)


def test_balanced_activations() -> None:
    rng = np.random.default_rng(3)
    peak = np.exp(rng.normal(0, 1.5, 32)).astype(np.float32)
    w = rng.normal(size=(16, 32)).astype(np.float32)
    column = eq.column_ranges(w, 32)
    flat = eq.balance_activations([peak], [column], 1.0)
    np.testing.assert_allclose(peak / flat, (peak / flat)[0], rtol=1e-4)
    np.testing.assert_allclose(eq.balance_activations([peak], []), flat, rtol=1e-5)
    weights = eq.balance_activations([peak], [column], 0.0)
    np.testing.assert_allclose(column * weights, (column * weights)[0], rtol=1e-4)
    smooth = peak**0.5 / column**0.5
    middle = eq.balance_activations([peak], [column])
    np.testing.assert_allclose(middle / middle[0], smooth / smooth[0], rtol=1e-4)


def test_predicted_noise_is_the_noise() -> None:
    """And so it picks the exponent: the best by prediction is near the best by measurement."""
    rng = np.random.default_rng(5)
    peak = np.exp(rng.normal(0, 1.2, 48))
    x = (rng.uniform(-1, 1, (4000, 48)) * peak).astype(np.float32)
    w = rng.normal(size=(256, 48)).astype(np.float32)
    top, power, column = np.abs(x).max(axis=0), (x**2).mean(axis=0), eq.column_ranges(w, 48)
    predicted, measured = [], []
    for alpha in np.linspace(0, 1, 11):
        s = eq.balance_activations([top], [column], float(alpha))
        predicted.append(eq.noise(s, [(w, 1)], top, power, bits=8, weight_bits=4))
        a = affine(-float((top / s).max()), float((top / s).max()), signed=True, symmetric=True)
        decoded = np.asarray(rtn.quantize(eq.multiply_columns(w, s), CHANNEL).decode())
        measured.append(float(((a.fake(x / s) @ decoded.T - x @ w.T) ** 2).sum(axis=1).mean()))
    np.testing.assert_allclose(predicted, measured, rtol=0.4)
    assert measured[int(np.argmin(predicted))] <= 1.1 * min(measured)
    assert min(measured) < 0.8 * max(measured[0], measured[-1])
