"""Inputs beside the samples: shared values, fixed ones, and state that is carried from call to call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.errors import DataError, RecipeError
from bitwright.models.samples.open import open_parts, open_samples
from bitwright.models.samples.preprocess import Feeding, part, size_of
from bitwright.recipe import Data

INPUTS: dict[str, Any] = {
    "x": ("float32", (None, 4)), "h": ("float32", (2, None, 3)), "rate": ("int64", ()),
}  # fmt: skip
AXES = {"x": 0, "h": 1, "rate": None}
ROWS = np.arange(24, dtype=np.float32).reshape(6, 4)
DATA = Data(order="given", batch=4)


def save(tmp: Path, **arrays: Any) -> Path:
    np.savez(tmp / "data.npz", **arrays)
    return tmp / "data.npz"


def test_each_input_is_stacked_along_its_own_axis(tmp_path: Path) -> None:
    h = np.arange(36, dtype=np.float32).reshape(6, 2, 3)
    path = save(tmp_path, x=ROWS, h=h, rate=np.int64(8000))
    first, second = open_samples(path, INPUTS, DATA, feeding=Feeding(AXES))
    assert [batch.feeds["x"].shape for batch in (first, second)] == [(4, 4), (2, 4)]
    assert np.array_equal(first.feeds["h"], h[:4].transpose(1, 0, 2))
    assert first.feeds["rate"].shape == () and int(first.feeds["rate"]) == 8000
    assert size_of(first.feeds, AXES) == 4
    assert [x.shape for x in part(first.feeds, AXES, 1).values()] == [(1, 4), (2, 1, 3), ()]


def test_a_batch_ends_where_a_shared_value_changes(tmp_path: Path) -> None:
    rates = np.int64([1, 1, 2, 2, 2, 1])
    path = save(tmp_path, x=ROWS, h=np.zeros((6, 2, 3), np.float32), rate=rates)
    batches = list(open_samples(path, INPUTS, DATA, feeding=Feeding(AXES)))
    assert [(len(batch.names), int(batch.feeds["rate"])) for batch in batches] == [(2, 1), (3, 2), (1, 1)]


def test_fixed_inputs_need_no_array(tmp_path: Path) -> None:
    path = save(tmp_path, x=ROWS, h=np.zeros((6, 2, 3), np.float32))
    feeding = Feeding(AXES, {"rate": np.array(16000)})
    for part_ in open_parts(DATA.model_copy(update={"source": str(path)}), INPUTS, feeding):
        assert all(int(batch.feeds["rate"]) == 16000 for batch in part_)
    given = open_samples([{"x": ROWS[:2], "h": np.zeros((2, 2, 3), np.float32)}], INPUTS, DATA, feeding=feeding)
    assert [sorted(batch.feeds) for batch in given] == [["h", "rate", "x"]] and len(given) == 2


def test_state_is_what_the_float_network_left(tmp_path: Path) -> None:
    """h' = h + the sum of x: after three calls it is the sum of those before."""
    calls = np.random.default_rng(0).normal(size=(6, 3, 4)).astype(np.float32)
    path = save(tmp_path, x=calls, rate=np.int64(1))

    def step(feeds: Any) -> Any:
        return {"hn": feeds["h"] + feeds["x"].sum(axis=1)[None, :, None]}

    samples = open_samples(path, INPUTS, DATA, feeding=Feeding(AXES, states={"h": "hn"}, step=step))
    assert (len(samples), samples.calls, samples.states) == (6, 3, {"h": "hn"})
    batches = list(samples)
    assert [batch.goes_on for batch in batches] == [False, True, True] * 2
    for start, group in ((0, batches[:3]), (4, batches[3:])):
        for call, batch in enumerate(group):
            rows = calls[start : start + 4]
            assert np.array_equal(batch.feeds["x"], rows[:, call])
            wanted = np.broadcast_to(rows[:, :call].sum(axis=(1, 2))[None, :, None], (2, len(rows), 3))
            np.testing.assert_allclose(batch.feeds["h"], wanted, atol=1e-5)
    assert samples.summary["calls"] == 3


def test_state_that_is_given_is_fed_as_it_is(tmp_path: Path) -> None:
    path = save(tmp_path, x=ROWS, h=np.ones((6, 2, 3), np.float32), rate=np.int64(1))
    samples = open_samples(path, INPUTS, DATA, feeding=Feeding(AXES, states={"h": "hn"}))
    assert samples.states == {} and all((batch.feeds["h"] == 1).all() for batch in samples)


def test_an_open_axis_of_a_state_begins_empty(tmp_path: Path) -> None:
    inputs: dict[str, Any] = {"x": ("float32", (None, 4)), "past": ("float32", (None, 2, None, 3))}
    path = save(tmp_path, x=ROWS)
    feeding = Feeding({"x": 0, "past": 0}, states={"past": "present"}, step=lambda feeds: {})
    assert [batch.feeds["past"].shape for batch in open_samples(path, inputs, DATA, feeding=feeding)] == [
        (4, 2, 0, 3), (2, 2, 0, 3),
    ]  # fmt: skip


def test_rows_serve_an_input_that_takes_one_at_a_time(tmp_path: Path) -> None:
    inputs: dict[str, Any] = {"x": ("float32", (None, 4)), "mask": ("float32", (1, 4))}
    path = save(tmp_path, x=ROWS, mask=ROWS)
    batches = list(open_samples(path, inputs, DATA, feeding=Feeding({"x": 0, "mask": None})))
    assert len(batches) == 6 and all(np.array_equal(batch.feeds["x"], batch.feeds["mask"]) for batch in batches)


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    calls, feeding = np.zeros((6, 3, 4), np.float32), Feeding(AXES, states={"h": "hn"}, step=lambda feeds: {})
    path = save(tmp_path, x=calls, rate=np.int64(1), labels=np.arange(6))
    with pytest.raises(DataError, match="labels for samples of 3 calls"):
        open_samples(path, INPUTS, DATA, feeding=feeding)
    path = save(tmp_path, x=calls, rate=np.int64([[1]]))
    with pytest.raises(DataError, match="arrays of 1 and 3 calls"):
        open_samples(path, INPUTS, DATA, feeding=feeding)
    path = save(tmp_path, x=ROWS, rate=np.int64(1))
    with pytest.raises(DataError, match="no array for input 'h'"):
        open_samples(path, INPUTS, DATA, feeding=Feeding(AXES))
    sizes: dict[str, Any] = {"x": ("float32", (2, 4)), "y": ("float32", (3, 4))}
    path = save(tmp_path, x=ROWS, y=ROWS)
    with pytest.raises(RecipeError, match=r"different numbers of samples at once \(x 2, y 3\)") as caught:
        open_samples(path, sizes, DATA)
    assert caught.value.key == "network.batch"
