"""Codes: what the grid and the codebook share, and codebooks against looking at every value."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core import code
from bitwright.core.code import Code, Codebook, middles, rank
from bitwright.core.grid import INT

few = settings(max_examples=30, deadline=None)


def book(seed: int, bits: int, rows: int, groups: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights [rows, groups, size] and an ascending table of fp16 values, some of them equal."""
    rng = np.random.default_rng(seed)
    table = np.sort(rng.normal(size=(rows, groups, 2**bits)).astype(np.float16).astype(np.float32), axis=-1)
    return rng.normal(size=(rows, groups, size)).astype(np.float32), table


@few
@given(seed=st.integers(0, 2**32), bits=st.integers(1, 8), rows=st.integers(1, 4), groups=st.integers(1, 3))
def test_nearest_is_the_nearest_value_in_both_libraries(seed: int, bits: int, rows: int, groups: int) -> None:
    x, table = book(seed, bits, rows, groups, 9)
    it = Codebook("b", bits)
    codes = it.nearest(x, table)
    assert codes.dtype == np.uint8 and codes.shape == x.shape
    back = it.decode(codes, table)
    least = np.abs(x[..., None].astype(np.float64) - table[..., None, :]).min(-1)
    assert np.allclose(np.abs(x - back.astype(np.float64)), least, atol=1e-6)
    assert (it.decode(it.nearest(back, table), table) == back).all()
    theirs = it.nearest(torch.from_numpy(x), torch.from_numpy(table))
    assert (theirs.numpy() == codes).all()
    assert (it.decode(theirs, torch.from_numpy(table)).numpy() == back).all()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for rows, groups in ((6, 3), (1, 1)):
        x, table = book(1, 3, rows, groups, 20)
        whole = Codebook("b", 3).nearest(x, table)
        monkeypatch.setattr(code, "CHUNK", 7)
        assert (Codebook("b", 3).nearest(x, table) == whole).all()
        monkeypatch.undo()


def test_bits() -> None:
    assert (Codebook("b", 3).bits, Codebook("b", 3).table_bits, Codebook("b", 3).row_bits(5)) == (3, 8 * 16, 15)
    assert (INT[3].bits, INT[3].table_bits, INT[3].row_bits(5)) == (3, 0, 15)
    assert isinstance(INT[3], Code)


def test_a_codebook_needs_its_table() -> None:
    with pytest.raises(ValueError, match="b means nothing without a table"):
        Codebook("b", 1).decode(np.zeros((1, 1, 2), np.uint8))
    with pytest.raises(ValueError, match="b means nothing without a table"):
        Codebook("b", 1).nearest(np.zeros((1, 1, 2), np.float32))


@few
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 3), n=st.integers(1, 9), above=st.booleans())
def test_rank_counts(seed: int, rows: int, n: int, above: bool) -> None:
    rng = np.random.default_rng(seed)
    values = np.sort(rng.integers(0, 6, (rows, n)), axis=-1).astype(np.float32)
    queries = rng.integers(-1, 8, (rows, 5)).astype(np.float32)
    held = values[:, None, :] <= queries[..., None] if above else values[:, None, :] < queries[..., None]
    assert (rank(values, queries, above) == held.sum(-1)).all()


def test_middles() -> None:
    assert middles(np.array([[0.0, 1.0, 4.0]], np.float32)).tolist() == [[0.5, 2.5]]
