"""Counts before and after add up, and errors lie where they were made."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.models.histogram import LEVELS, histogram


def test_pieces_count_as_the_whole() -> None:
    w = np.random.default_rng(0).standard_normal((64, 50)).astype(np.float32)
    decoded = np.clip(np.round(w * 2) / 2, -2, 2)
    whole = histogram(lambda: [(w, decoded)], 32)
    parts = histogram(lambda: ((w[i : i + 7], decoded[i : i + 7]) for i in range(0, 64, 7)), 32)
    assert parts["before"] == whole["before"] == np.histogram(w, 32)[0].tolist()
    assert parts["after"] == whole["after"]
    assert sum(whole["after"]) == w.size
    assert whole["levels"] == [n / 2 for n in range(-4, 5)]
    assert sum(whole["errors"]) == pytest.approx(1)
    assert parts["mse"] == pytest.approx(float(((w - decoded) ** 2).mean()))


def test_the_error_lies_at_the_outlier_that_was_cut_off() -> None:
    w = np.array([[0, 0.1, 0.2, 10]], np.float32)
    found = histogram(lambda: [(w, np.minimum(w, np.float32(1)))], 10)
    assert found["errors"] == [0] * 9 + [1]


def test_weights_that_are_all_the_same_and_come_back_exactly() -> None:
    w = np.ones((2, 3), np.float32)
    found = histogram(lambda: [(w, w)], 4)
    assert found["before"] == found["after"] == [6, 0, 0, 0]
    assert found["errors"] == [0] * 4


def test_many_values_are_no_levels() -> None:
    w = np.arange(LEVELS + 1, dtype=np.float32)[None]
    assert histogram(lambda: [(w, w)], 8)["levels"] is None
