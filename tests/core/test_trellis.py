"""Trellis codes: what they mean, by plain loops; that the path found is the best; and how near the limit they come."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import torch

from bitwright.core.formats import named
from bitwright.core.qtensor import QTensor, encode
from bitwright.core.trellis import GOLDEN, LEVELS, Trellis, path, stretches
from bitwright.errors import RecipeError

BITS = (2, 3, 4)
LIMIT = {2: 0.070, 3: 1.12 * 4**-3, 4: 1.12 * 4**-4}
"""Mean squared error on a unit normal distribution: no code of so many bits stays below 4^-bits."""


def by_hand(codes: np.ndarray, code: Trellis) -> np.ndarray:
    """Values of `codes` [rows, columns], weight by weight, with whole numbers of any length."""
    out = np.zeros(codes.shape, np.float32)
    for first in range(0, len(codes), code.rows):
        block = codes[first : first + code.rows]
        places = [(i, k) for i, k in itertools.product(*map(range, block.shape))]
        stream = 0
        for i, k in sorted(places, key=lambda at: (sum(at), at)):
            stream = stream << code.bits | int(block[i, k])
            history = stream >> code.bits & (1 << code.history) - 1
            place = (GOLDEN * (history + 1) + (int(block[i, k]) << 32 - code.bits)) % 2**32
            level = (place >> 32 - LEVELS) + 0.5
            out[first + i, k] = NormalDist().inv_cdf(level / 2**LEVELS)
    return out


@pytest.mark.parametrize("bits", BITS)
def test_decodes_as_plain_loops_do_in_both_libraries(bits: int) -> None:
    code = Trellis("t", bits, rows=6)
    codes = np.random.default_rng(bits).integers(0, 1 << bits, (9, 1, 11), dtype=np.uint8)
    expected = by_hand(codes[:, 0], code)
    assert (code.decode(codes)[:, 0] == expected).all()
    assert (code.decode(torch.from_numpy(codes)).numpy()[:, 0] == expected).all()


def test_what_can_follow_cuts_the_distribution_into_equal_shares() -> None:
    for bits in BITS:
        shares = [NormalDist().cdf(v) * 2**bits for v in Trellis("t", bits).worth.reshape(-1, 1 << bits)[77]]
        assert sorted(int(s) for s in shares) == list(range(1 << bits))
        assert max(s % 1 for s in shares) - min(s % 1 for s in shares) < 1e-4


@pytest.mark.parametrize("bits", [2, 3])
def test_finds_the_best_of_all_paths(bits: int) -> None:
    code = Trellis("t", bits, history=3)
    x = np.random.default_rng(bits).normal(size=(2, 1, 3)).astype(np.float32)
    every = np.array([*itertools.product(range(1 << bits), repeat=6)] if bits == 2 else
                     np.random.default_rng(0).integers(0, 8, (20000, 6)), np.uint8).reshape(-1, 2, 1, 3)  # fmt: skip
    least = min(float(((code.decode(codes) - x) ** 2).sum()) for codes in every)
    found = code.nearest(x)
    assert ((code.decode(found) - x) ** 2).sum() <= least * (1 + 1e-4) + 1e-4
    assert (code.nearest(torch.from_numpy(x)).numpy() == found).all()


@pytest.mark.parametrize("bits", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)])
def test_error_on_a_normal_distribution_is_near_the_limit(bits: int) -> None:
    w = np.random.default_rng(3).normal(size=(256, 256)).astype(np.float32)
    code = Trellis("t", bits)
    x = w[:, None] / np.float32(code.suits)
    error = (w - code.decode(code.nearest(x))[:, 0] * np.float32(code.suits)) ** 2
    assert 4.0**-bits < error.mean() / (w**2).mean() <= LIMIT[bits]


def test_a_path_visits_every_weight_once_and_none_before_what_feeds_it() -> None:
    rows, columns = 5, 7
    order, back = path(rows, columns)
    assert sorted(order) == list(range(rows * columns)) and (order[back] == np.arange(rows * columns)).all()
    at = back.reshape(rows, columns)
    assert (np.diff(at, axis=0) > 0).all() and (np.diff(at, axis=1) > 0).all()
    ends = stretches(rows, columns, 1)
    assert ends[-1] == rows * columns and len(ends) == rows + columns - 1
    for start, stop in itertools.pairwise([0, *ends]):
        assert len({sum(divmod(int(i), columns)) for i in order[start:stop]}) == 1, "one diagonal"
    assert [int(end) for end in stretches(256, 512, 64)][:2] == [66, 136] and len(stretches(3, 2, 64)) == 1


def test_rows_are_cut_where_paths_end() -> None:
    format = named("trellis2")
    format = replace(format, code=Trellis("trellis2", 2, rows=4))
    w = np.random.default_rng(0).normal(size=(10, 32)).astype(np.float32)
    q = encode(w, format, format.scale.round(np.ones((10, 1), np.float32)))
    assert 0.03 < ((w - q.decode()) ** 2).mean() < 0.2
    parts = [q.part(0, 4), q.part(4, 8), q.part(8, 10)]
    assert (np.concatenate([part.decode() for part in parts]) == q.decode()).all()
    assert (QTensor.stack(parts).codes == q.codes).all()


def test_takes_two_bits_and_one_scale_a_row() -> None:
    assert named("trellis2").stored_bits(512, 1024) == 512 * (2 * 1024 + 16)
    assert named("trellis3", group=32, symmetric=False) == named("trellis3")


def test_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    for module in ("viterbi", "compiled"):
        monkeypatch.delitem(sys.modules, f"bitwright.core.{module}", raising=False)
    monkeypatch.delattr("bitwright.core.viterbi", raising=False)
    with pytest.raises(RecipeError, match="trellis2 needs numba"):
        named("trellis2").code.nearest(np.zeros((1, 1, 4), np.float32))
