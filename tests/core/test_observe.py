"""Calibration records that merge exactly, ranges against brute force, the affine quantizer against ONNX Runtime."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bitwright.core.observe import BINS, RULES, Affine, Channels, Histogram, affine, choose
from bitwright.errors import RecipeError

few = settings(max_examples=100, deadline=None)
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
arrays = hnp.arrays(np.float32, st.integers(1, 60), elements=floats)
tame = hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-100, 100, width=32))


def same(a: Histogram, b: Histogram) -> bool:
    exact = ("count", "low", "high", "exponent", "first", "zeros", "bad")
    return all(getattr(a, name) == getattr(b, name) for name in exact) and np.array_equal(a.counts, b.counts)


def sample(kind: str, n: int = 200_000, seed: int = 0) -> np.ndarray:
    r = np.random.default_rng(seed)
    x = {
        "gauss": lambda: r.normal(0.2, 1.0, n),
        "laplace": lambda: r.laplace(0, 2.0, n),
        "relu": lambda: np.maximum(r.normal(-0.3, 1.0, n), 0),
        "student": lambda: r.standard_t(3, n),
        "relu6": lambda: np.clip(r.normal(1, 3.0, n), 0, 6),
        "lopsided": lambda: np.where(r.random(n) < 0.02, r.normal(8, 1, n), r.normal(-0.2, 0.3, n)),
    }[kind]()
    return x.astype(np.float32)


KINDS = ["gauss", "laplace", "relu", "student", "relu6", "lopsided"]


# --- records ----------------------------------------------------------------------------------------------------------


@few
@given(arrays, arrays)
def test_the_sum_of_records_has_exactly_the_bins_of_the_record_of_all(a: np.ndarray, b: np.ndarray) -> None:
    merged, whole = Histogram.of(a) + Histogram.of(b), Histogram.of(np.concatenate([a, b]))
    assert same(merged, whole) and same(Histogram.of(b) + Histogram.of(a), whole)
    assert whole.counts.sum() == whole.count == len(a) + len(b) and len(whole.counts) <= BINS
    assert math.isclose(merged.total, whole.total, rel_tol=1e-5, abs_tol=1e-6 * np.abs([*a, *b]).max() * whole.count)
    assert math.isclose(merged.square, whole.square, rel_tol=1e-6)
    assert (merged.batches, whole.batches) == (2, 1)


@few
@given(arrays, arrays, arrays)
def test_pieces_in_any_order(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    x, y, z = (Histogram.of(v) for v in (a, b, c))
    assert same((x + y) + z, x + (z + y))
    assert same(sum([x, y, z], Histogram()), x + y + z)


@few
@given(arrays)
def test_every_value_lies_in_its_bin_and_bins_are_narrow(x: np.ndarray) -> None:
    h = Histogram.of(x)
    index = np.floor(np.ldexp(x.astype(np.float64), -h.exponent)) - h.first
    np.testing.assert_array_equal(np.bincount(index.astype(int), minlength=len(h.counts)), h.counts)
    assert (h.low, h.high) == (x.min(), x.max()) and h.zeros == (x == 0).sum()
    assert h.edges[0] <= h.low and h.high < h.edges[-1]
    peak = np.abs(x).max()
    assert len(h.counts) > BINS // 2 - 1 or h.width <= max(2**-22 * peak, 2.0**-100), "half of the bins at least"


def test_many_chunks_torch_and_numpy() -> None:
    x = sample("gauss", 100_001).reshape(11, -1)
    a, b = Histogram.of(x), Histogram.of(torch.from_numpy(x))
    assert same(a, b) and a.total == b.total
    assert math.isclose(a.mean, x.mean(dtype=np.float64), rel_tol=1e-9)
    assert math.isclose(a.power, (x.astype(np.float64) ** 2).mean(), rel_tol=1e-9)
    assert same(Histogram.of(torch.from_numpy(x).requires_grad_()), a)
    half = torch.from_numpy(x).to(torch.bfloat16)
    assert same(Histogram.of(half), Histogram.of(half.float()))


def test_values_that_are_not_finite_are_counted_apart() -> None:
    x = np.array([1.0, np.nan, -2.0, np.inf, -np.inf], np.float32)
    h = Histogram.of(x)
    assert not h.finite and h.bad == 3 and h.count == 2 and (h.low, h.high) == (-2.0, 1.0)
    assert (h + Histogram.of(np.ones(3, np.float32))).bad == 3
    nothing = Histogram.of(x[[1, 3]])
    assert nothing.bad == 2 and nothing.count == 0
    assert same(nothing + Histogram.of(np.ones(3, np.float32)), Histogram.of(np.array([1, 1, 1, np.nan, np.inf])))
    assert Histogram.of(np.zeros((0, 3), np.float32)).count == 0 and Histogram().finite


def test_bounded_and_fast() -> None:
    x = sample("gauss", 4_000_000)
    times = []
    for _ in range(3):
        start = time.process_time()
        h = Histogram.of(x)
        times.append(time.process_time() - start)
    assert h.counts.nbytes <= 8 * BINS
    assert min(times) < 0.4, "10 M values a second, a tenth of what one idle core does"


@few
@given(hnp.arrays(np.float32, (6, 3, 4), elements=st.floats(-50, 50, width=32)), st.integers(1, 5))
def test_channels(x: np.ndarray, cut: int) -> None:
    a, b = Channels.of(x[:cut]) + Channels.of(x[cut:]), Channels.of(torch.from_numpy(x))
    rows = x.transpose(1, 0, 2).reshape(3, -1).astype(np.float64)
    for c in (a, b):
        assert c.n == 24
        np.testing.assert_array_equal(np.asarray(c.low), rows.min(axis=1))
        np.testing.assert_array_equal(np.asarray(c.peak), np.abs(rows).max(axis=1))
        np.testing.assert_allclose(np.asarray(c.mean), rows.mean(axis=1), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(np.asarray(c.power), (rows**2).mean(axis=1), rtol=1e-5, atol=1e-30)
    assert Channels.of(x, axis=-1).total.shape == (4,) and Channels.of(x[0, :, 0], axis=0).n == 1


# --- ranges -----------------------------------------------------------------------------------------------------------


def measured(x: np.ndarray, a: Affine) -> float:
    return float(np.mean((a.fake(x).astype(np.float64) - x) ** 2))


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_expected_noise_is_the_noise(kind: str, bits: int) -> None:
    x = sample(kind)
    h = Histogram.of(x)
    for rule in RULES:
        a = affine(*choose(h, rule, bits), bits)
        assert math.isclose(h.noise(a), measured(x, a), rel_tol=0.02), rule


def test_noise_of_exact_values() -> None:
    """Zeros cost nothing; the outermost bins end at the extreme values; a lone value is a point."""
    h = Histogram.of(np.array([0.0] * 90 + [0.3] * 10, np.float32))
    assert math.isclose(h.noise(Affine(1.0, 0)), 0.1 * 0.3**2, rel_tol=1e-2)
    assert Histogram.of(np.zeros(5, np.float32)).noise(Affine(1.0, 0)) == 0
    assert math.isclose(Histogram.of(np.full(5, 2.3, np.float32)).noise(Affine(1.0, 0)), 0.09, rel_tol=1e-3)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_mse_within_two_percent_of_brute_force_on_the_samples(kind: str, bits: int, symmetric: bool) -> None:
    x = sample(kind, 20_000)
    options: dict[str, Any] = dict(signed=symmetric, symmetric=symmetric)
    found = measured(x, affine(*choose(Histogram.of(x), "mse", bits, **options), bits, **options))
    shares = np.geomspace(0.04, 1, 45)
    low, high = min(float(x.min()), 0.0), float(x.max())
    pairs = [(low * s, high * t) for s in (shares if low and not symmetric else [1.0]) for t in shares]
    if symmetric:
        pairs = [(-max(high, -low) * t, max(high, -low) * t) for t in shares]
    assert found <= 1.02 * min(measured(x, affine(a, b, bits, **options)) for a, b in pairs)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["relu", "relu6"])
def test_without_negative_values_low_stays_zero(kind: str, rule: str) -> None:
    low, high = choose(Histogram.of(sample(kind)), rule, 8)
    assert low == 0 and high > 0 and affine(low, high, 8).zero == 0


@pytest.mark.parametrize("percentile", [99.0, 99.9, 99.99])
@pytest.mark.parametrize("kind", KINDS)
def test_percentile_is_that_of_numpy_within_a_bin(kind: str, percentile: float) -> None:
    x = sample(kind)
    h = Histogram.of(x)
    low, high = choose(h, "percentile", percentile=percentile)
    wanted = np.percentile(x, [100 - percentile, percentile])
    assert abs(high - wanted[1]) <= h.width and abs(low - min(wanted[0], 0)) <= h.width
    low, high = choose(h, "percentile", symmetric=True, percentile=percentile)
    assert abs(high - np.percentile(np.abs(x), percentile)) <= h.width and low in (0.0, -high)


def test_average_is_the_mean_over_batches() -> None:
    batches = [np.array(v, np.float32) for v in ([-1, 2], [-3, 10], [0.5, 3])]
    h = sum((Histogram.of(b) for b in batches), Histogram())
    assert choose(h, "minmax") == (-3.0, 10.0)
    assert choose(h, "average") == (pytest.approx((-1 - 3 + 0.5) / 3), 5.0)


def naive_divergence(h: Histogram, a: Affine) -> float:
    """TensorRT's KL with loops over bins: the definition."""
    counts = h.counts.astype(float)
    if h.zeros:
        counts[-h.first] -= h.zeros
    middle = (np.arange(len(counts)) + h.first + 0.5) * h.width
    code = np.floor(middle / a.scale + a.zero + 0.5)
    inside = np.flatnonzero((code >= a.qmin) & (code <= a.qmax))
    p, kept = counts[inside].copy(), counts[inside]
    p[0] += counts[: inside[0]].sum()
    p[-1] += counts[inside[-1] + 1 :].sum()
    q = np.zeros_like(p)
    for k in set(code[inside]):
        here = (code[inside] == k) & (p > 0)
        if here.any():
            q[here] = max(kept[code[inside] == k].sum(), 0.5) / here.sum()
    p, q = p / p.sum(), q / kept.sum()
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_entropy_against_its_definition(kind: str, bits: int) -> None:
    from bitwright.core import observe

    h = Histogram.of(sample(kind, 20_000))
    r = np.random.default_rng(1)
    lows, highs = min(h.low, 0.0) * r.uniform(0.2, 1, 40), h.high * r.uniform(0.2, 1, 40)
    for signed, symmetric in ((False, False), (True, False), (True, True)):
        found = observe._entropy(h, lows, highs, bits, signed, symmetric)
        for low, high, value in zip(lows, highs, found, strict=True):
            a = affine(low, high, bits, signed=signed, symmetric=symmetric)
            if a.scale >= h.width:
                assert value == pytest.approx(naive_divergence(h, a), rel=1e-6, abs=1e-9)
            else:
                assert value == math.inf
        low, high = choose(h, "entropy", bits, signed=signed, symmetric=symmetric)
        chosen = naive_divergence(h, affine(low, high, bits, signed=signed, symmetric=symmetric))
        assert chosen <= found.min() * 1.05 + 1e-9, "near the best of forty random ranges"


def test_entropy_clips_heavy_tails() -> None:
    h = Histogram.of(sample("student"))
    options: dict[str, Any] = dict(signed=True, symmetric=True)
    low, high = choose(h, "entropy", 8, **options)
    assert high < 0.6 * max(-h.low, h.high)
    full = affine(h.low, h.high, 8, **options)
    assert naive_divergence(h, affine(low, high, 8, **options)) < naive_divergence(h, full)


@pytest.mark.parametrize("rule", ["mse", "entropy"])
def test_searches_are_fast(rule: str) -> None:
    records = [Histogram.of(sample(kind, 50_000, seed)) for kind in KINDS for seed in range(3)]
    start = time.process_time()
    for h in records:
        choose(h, rule)
    assert time.process_time() - start < 2.0


@pytest.mark.parametrize("rule", RULES)
def test_nothing_seen_zeros_and_constants(rule: str) -> None:
    assert choose(Histogram(), rule) == choose(Histogram.of(np.zeros(9, np.float32)), rule) == (0.0, 0.0)
    low, high = choose(Histogram.of(np.full(9, -2.5, np.float32)), rule)
    a = affine(low, high)
    assert high == 0 and abs(float(a.fake(np.float32(-2.5))) + 2.5) < 0.02


def test_a_rule_that_is_none() -> None:
    with pytest.raises(RecipeError, match="no rule is called 'max'"):
        choose(Histogram(), "max")
    with pytest.raises(RecipeError, match="percentile 30"):
        choose(Histogram(), "percentile", percentile=30)


# --- the affine quantizer ---------------------------------------------------------------------------------------------


@few
@given(floats, floats, st.integers(2, 16), st.booleans(), st.booleans())
def test_zero_is_exact_and_the_range_is_held(a: float, b: float, bits: int, signed: bool, symmetric: bool) -> None:
    low, high = min(a, b), max(a, b)
    q = affine(low, high, bits, signed=signed, symmetric=symmetric)
    assert q.scale >= 2.0**-126 and math.isfinite(q.scale) and np.float32(q.scale) == q.scale
    assert q.qmin <= q.zero <= q.qmax
    assert q.fake(np.zeros(1, np.float32))[0] == 0
    reach = q.scale * 0.5001
    assert q.low - reach <= min(low, 0) * (1 - 1e-6) and max(high, 0) * (1 - 1e-6) <= q.high + reach
    if symmetric:
        assert q.zero == (0 if signed else 2 ** (bits - 1))
        assert q.high == pytest.approx(max(high, -low) if low or high else q.high)


@pytest.mark.parametrize("signed", [False, True])
@few
@given(data=st.data())
def test_round_trip_of_every_code(signed: bool, data: st.DataObject) -> None:
    low, high = sorted(data.draw(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))))
    q = affine(low, high, 8, signed=signed)
    codes = np.arange(q.qmin, q.qmax + 1).astype(np.int8 if signed else np.uint8)
    np.testing.assert_array_equal(q.quantize(q.decode(codes)), codes)
    assert q.decode(codes)[0] == pytest.approx(q.low) and q.decode(codes)[-1] == pytest.approx(q.high)


@few
@given(tame, st.booleans(), st.booleans(), st.sampled_from([4, 7, 8, 16]))
def test_numpy_and_torch_agree_to_the_bit(x: np.ndarray, signed: bool, symmetric: bool, bits: int) -> None:
    q = affine(float(x.min()), float(x.max()), bits, signed=signed, symmetric=symmetric)
    fake, codes = q.fake(x), q.quantize(x)
    assert fake.dtype == np.float32 and codes.dtype.itemsize == (1 if bits <= 8 else 2)
    np.testing.assert_array_equal(q.fake(torch.from_numpy(x)).numpy(), fake)
    np.testing.assert_array_equal(q.quantize(torch.from_numpy(x)).numpy(), codes)
    np.testing.assert_array_equal(q.decode(codes), fake)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_onnx_runtime_to_the_bit(signed: bool, symmetric: bool) -> None:
    onnx = pytest.importorskip("onnx", reason="needs the extra `onnx`")
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    make, kind = onnx.helper, onnx.TensorProto.INT8 if signed else onnx.TensorProto.UINT8
    value = make.make_tensor_value_info
    graph = make.make_graph(
        [
            make.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            make.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        "pair",
        [value("x", 1, [None]), value("s", 1, []), value("z", kind, [])],
        [value("q", kind, [None]), value("y", 1, [None])],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    r = np.random.default_rng(0)
    for low, high in [(-1.0, 3.0), (0.0, 6.0), (-0.01, 0.02), (-5.0, 0.0), (-1e-30, 1e-30), (-3e8, 1e9), (0.0, 0.0)]:
        a = affine(low, high, 8, signed=signed, symmetric=symmetric)
        # Random values in and out of range, all half-way points, and their float32 neighbours.
        half = ((np.arange(-300, 300) + 0.5) * a.scale).astype(np.float32)
        near = [np.nextafter(half, np.float32(to)) for to in (-np.inf, np.inf)]
        x = np.concatenate([r.uniform(2 * a.low - 1, 2 * a.high + 1, 5000).astype(np.float32), half, *near])
        zero = np.array(a.zero, np.int8 if signed else np.uint8)
        q, y = session.run(None, {"x": x, "s": np.array(a.scale, np.float32), "z": zero})
        np.testing.assert_array_equal(a.quantize(x), q)
        np.testing.assert_array_equal(a.fake(x), y)


def test_a_worked_example() -> None:
    """FACTS: the affine quantizer of [-1, 3] in 8 bits has s = 4/255 and z = round(63.75) = 64."""
    a = affine(-1, 3, 8)
    assert a.scale == float(np.float32(4 / 255)) and a.zero == 64
    assert a.quantize(np.array([-1.0, 0.0, 0.5, 3.0, 99.0], np.float32)).tolist() == [0, 64, 96, 255, 255]
    assert affine(0.0, 0.0).scale == 1.0


@pytest.mark.parametrize(
    ("low", "high", "bits"), [(0, 1, 1), (0, 1, 17), (math.nan, 1, 8), (0, math.inf, 8), (2, 1, 8)]
)
def test_ranges_that_make_no_quantizer(low: float, high: float, bits: int) -> None:
    with pytest.raises(RecipeError):
        affine(low, high, bits)


@pytest.mark.parametrize("rule", RULES)
def test_usage_of_a_range_is_that_of_the_values_themselves(rule: str) -> None:
    rng = np.random.default_rng(5)
    x = np.concatenate([np.maximum(rng.normal(0, 1, 60_000), -0.3), np.zeros(9_000)]).astype(np.float32)
    seen = Histogram.of(x)
    a = affine(*choose(seen, rule))
    found, true = seen.usage(a), np.bincount(a.quantize(x), minlength=256)
    share = true[true > 0] / true.sum()
    assert (found.levels, found.total) == (256, pytest.approx(len(x)))
    assert found.used == pytest.approx((true > 0).sum(), abs=3)
    assert found.entropy == pytest.approx(-(share * np.log2(share)).sum(), abs=0.01)


def test_usage_of_values_that_are_all_alike() -> None:
    a = affine(0.0, 2.0)
    for x, used in ((np.zeros(50, np.float32), 1), (np.full(50, 1.3, np.float32), 1), (np.zeros(0, np.float32), 0)):
        found = Histogram.of(x).usage(a)
        assert (found.used, found.entropy, found.total) == (used, 0.0, len(x))
