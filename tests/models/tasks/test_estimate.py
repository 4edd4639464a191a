"""Intervals: they add up, and they hold what they promise."""

from __future__ import annotations

import functools
import math
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.models.tasks.estimate import Change, Estimate, Mean, Ratio, Share

numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


@given(numbers, st.integers(1, 5))
def test_means_add_up(values: list[float], size: int) -> None:
    parts = [Mean.of(values[start : start + size]) for start in range(0, len(values), size)]
    found, whole = functools.reduce(operator.add, parts, Mean()).estimate, Mean.of(values).estimate
    assert found.value == pytest.approx(whole.value, rel=1e-9, abs=1e-6)
    if len(values) > 1:
        scale = max(map(abs, values))
        assert found.interval == pytest.approx(whole.interval, rel=1e-6, abs=1e-9 * scale + 1e-12)
        spread = np.std(values, ddof=1) / math.sqrt(len(values))
        assert whole.interval == pytest.approx(1.959964 * spread, rel=1e-6, abs=1e-9 * scale + 1e-12)
    assert Estimate.of(values) == whole


def test_few_samples() -> None:
    assert Estimate.of([3.0]) == Estimate(3.0, math.inf)
    assert Ratio.of([1], [4]).estimate == Estimate(0.25, math.inf)
    assert math.isnan(Share().value) and (Share().low, Share().high) == (0, 1)
    assert math.isnan(Change().estimate.value) and math.isnan(Ratio.of([], []).estimate.value)


@given(st.lists(st.booleans(), max_size=40), st.lists(st.booleans(), max_size=40))
def test_shares_add_up_and_lie_in_their_bounds(a: list[bool], b: list[bool]) -> None:
    share = Share.of(a) + Share.of(b)
    assert share == Share.of(a + b)
    assert 0 <= share.low <= share.high <= 1
    if a + b:
        assert share.low - 1e-12 <= share.value <= share.high + 1e-12


def test_wilson_is_the_published_one() -> None:
    # Newcombe 1998, table I: 81 of 263, and 0 of 20.
    assert (Share(81, 263).low, Share(81, 263).high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert (Share(0, 20).low, Share(0, 20).high) == pytest.approx((0, 0.1611), abs=5e-5)


@pytest.mark.parametrize(("p", "n"), [(0.5, 40), (0.9, 200), (0.99, 400)])
def test_intervals_cover(p: float, n: int) -> None:
    rng = np.random.default_rng(0)
    hits = rng.binomial(n, p, 3000)
    assert np.mean([Share(int(k), n).low <= p <= Share(int(k), n).high for k in hits]) > 0.93
    before, after = rng.random((2, 1500, n)) < p
    cover = [abs(Change.between(a, b).estimate.value) <= Change.between(a, b).estimate.interval for a, b in zip(before, after, strict=True)]  # fmt: skip # noqa: E501
    assert np.mean(cover) > 0.93


def test_change() -> None:
    before, after = [1, 1, 0, 0, 1], [1, 0, 1, 0, 0]
    change = Change.between(before, after)
    assert change == Change(gained=1, lost=2, count=5)
    assert change.estimate.value == pytest.approx(-0.2)
    assert change == Change.between(before[:2], after[:2]) + Change.between(before[2:], after[2:])
    assert Change(0, 0, 2000).estimate.interval > 0, "nothing changed, and yet one is not sure"


def test_ratio_of_sums() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 20, (800, 100))
    errors = rng.binomial(sizes, 0.2)
    found = [Ratio.of(e, n).estimate for e, n in zip(errors, sizes, strict=True)]
    assert 0.92 < np.mean([abs(x.value - 0.2) <= x.interval for x in found]) < 0.98
    parts = Ratio.of(errors[0, :30], sizes[0, :30]) + Ratio.of(errors[0, 30:], sizes[0, 30:])
    assert parts == Ratio.of(errors[0], sizes[0])
    assert parts.estimate.value == errors[0].sum() / sizes[0].sum()
