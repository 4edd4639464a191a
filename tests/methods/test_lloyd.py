"""Codebooks against the definition of Lloyd's optimum, an exact dynamic program, and edge blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.formats import named
from bitwright.core.measure import mse
from bitwright.core.qtensor import QTensor
from bitwright.core.stats import Stats
from bitwright.errors import RecipeError
from bitwright.methods import lloyd

few = settings(max_examples=10, deadline=None)
seeds = st.integers(0, 2**32)
BLOCKS = [8, "channel", "tensor"]


def weights(seed: int, rows: int = 4, columns: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_t(4, (rows, columns)) * np.exp(rng.normal(0, 1, (rows, 1)))).astype(np.float32)


def calibration(seed: int, columns: int = 64) -> Stats:
    rng = np.random.default_rng(seed)
    return Stats.of((rng.normal(size=(100, columns)) * np.exp(rng.normal(0, 1.5, columns))).astype(np.float32))


def exact_error(x: np.ndarray, h: np.ndarray, levels: int) -> float:
    """The least possible weighted squared error of one block, by dynamic programming over sorted intervals."""
    order = np.argsort(x)
    v, w = x[order].astype(np.float64), h[order].astype(np.float64)
    n = len(v)
    s0, s1, s2 = (np.concatenate([[0], np.cumsum(w * v**k)]) for k in (0, 1, 2))
    best = np.full(n + 1, np.inf)
    best[0] = 0
    for _ in range(levels):
        step = np.full(n + 1, np.inf)
        step[0] = 0
        for j in range(1, n + 1):
            i = np.arange(j)
            cost = s2[j] - s2[i] - (s1[j] - s1[i]) ** 2 / (s0[j] - s0[i])
            step[j] = (best[:j] + np.maximum(cost, 0)).min()
        best = step
    return float(best[n])


def checked(q: QTensor, w: np.ndarray) -> QTensor:
    """`q`, once its form is right: an ascending fp16 table of the right shape and nearest codes."""
    assert q.table is not None
    x, table = q.format.blocks(w), np.asarray(q.table)
    assert table.shape == (*x.shape[:2], 2**q.format.bits) and table.dtype == np.float32
    assert (table == table.astype(np.float16)).all() and (np.diff(table) >= 0).all()
    assert np.asarray(q.scale).shape == x.shape[:2] and (np.asarray(q.scale) == 1).all()
    wide, levels = x.astype(np.float64), table.astype(np.float64)
    distance = np.abs(wide - np.asarray(q.decode()).reshape(x.shape))
    nearest = np.abs(wide[..., None] - levels[:, :, None, :]).min(axis=-1)
    # A border is rounded to float32, next to levels that may be larger than it.
    assert (distance <= nearest + 2.0**-22 * np.abs(levels).max(axis=-1, keepdims=True)).all()
    assert np.asarray(q.codes).max() < 2**q.format.bits
    return q


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@few
@given(seed=seeds)
def test_form_and_both_libraries(block: int | str, bits: int, seed: int) -> None:
    w, format = weights(seed), named(f"codebook{bits}", group=block)  # type: ignore[arg-type]
    stats = calibration(seed)
    for s in (None, stats):
        q = checked(lloyd.quantize(w, format, s), w)
        assert q.stored_bits() == format.stored_bits(4, 64)
        again = lloyd.quantize(w, format, s)
        assert (again.codes == q.codes).all() and (again.table == q.table).all()
        ts = s and Stats(s.n, torch.from_numpy(np.array(s.moment)))
        t = checked(lloyd.quantize(torch.from_numpy(w), format, ts), w)
        np.testing.assert_allclose(t.table.numpy(), q.table, rtol=2e-3, atol=1e-6)
        assert mse(w, t.decode().numpy()) == pytest.approx(mse(w, q.decode()), rel=1e-2, abs=1e-9)


@few
@given(seed=seeds, bits=st.integers(1, 4))
def test_every_level_is_the_weighted_mean_of_its_cell(seed: int, bits: int) -> None:
    w, stats = weights(seed, 3, 200), calibration(seed, 200)
    q = lloyd.quantize(w, named(f"codebook{bits}", group="channel"), stats, rounds=1000)
    for row in range(3):
        x, power, codes = w[row].astype(np.float64), stats.power.astype(np.float64), q.codes[row].astype(int)
        levels = q.table[row, 0].astype(np.float64)
        # Rounding the levels to fp16 moves the borders between them: a weight that near may have changed cells since.
        moved = 2.0**-10 * np.maximum(abs(levels[1:]), abs(levels[:-1]))
        near = (abs(x[:, None] - (levels[1:] + levels[:-1]) / 2) <= moved).any(axis=1)
        for code in np.unique(codes):
            cell = codes == code
            doubtful = near & (abs(codes - code) <= 1)
            either = cell | doubtful
            slack = power[doubtful].sum() / power[either].sum() * np.ptp(x[either])
            mean = np.average(x[cell], weights=power[cell])
            assert levels[code] == pytest.approx(mean, rel=1e-3, abs=1e-4 + slack)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 3])
def test_close_to_the_exact_optimum(bits: int, weighted: bool) -> None:
    """Lloyd finds a local optimum, on these heavy-tailed, unevenly weighted rows seldom far from the global one."""
    ratios = []
    for seed in range(20):
        w, stats = weights(seed, 8, 64), calibration(seed)
        q = lloyd.quantize(w, named(f"codebook{bits}", group="channel"), stats if weighted else None)
        h = stats.power if weighted else np.ones(64, np.float32)
        got = ((w - q.decode()).astype(np.float64) ** 2 * h).sum(axis=1)
        least = np.array([exact_error(row, h, 2**bits) for row in w])
        assert (got >= least * (1 - 1e-6)).all()
        ratios.append(got.sum() / least.sum())
    assert np.median(ratios) < 1.2


def test_weighting_buys_weighted_error() -> None:
    w, stats = weights(0, 16, 256), calibration(1, 256)
    format = named("codebook3", group="channel")
    plain, weighted = lloyd.quantize(w, format), lloyd.quantize(w, format, stats)

    def cost(q: QTensor) -> float:
        return float(((w - q.decode()) ** 2 * stats.power).sum())

    assert cost(weighted) < 0.8 * cost(plain)
    assert mse(w, plain.decode()) < mse(w, weighted.decode())


@pytest.mark.parametrize("block", BLOCKS)
def test_few_different_values_come_back_exactly(block: int | str) -> None:
    """One rare value among two frequent ones still gets a level of its own."""
    w = np.zeros((4, 64), np.float32)
    w[:, 20:] = 1.0
    w[:, 10] = 0.5
    w[:, 40] = 0.25
    w[3] *= -2
    for bits in (3, 4):
        q = lloyd.quantize(w, named(f"codebook{bits}", group=block))  # type: ignore[arg-type]
        assert (q.decode() == w).all()


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("block", BLOCKS)
def test_constant_and_zero_blocks(block: int | str, bits: int) -> None:
    format = named(f"codebook{bits}", group=block)  # type: ignore[arg-type]
    for value in (0.0, 0.75, -3.0):
        w = np.full((2, 16), value, np.float32)
        for x in (w, torch.from_numpy(w)):
            assert (np.asarray(lloyd.quantize(x, format).decode()) == value).all()


def test_dead_inputs_and_silent_calibration() -> None:
    w, stats = weights(7), calibration(7)
    moment = stats.moment.copy()
    moment[:32] = 0
    moment[:, :32] = 0
    format = named("codebook4", group="channel")
    dead = Stats(stats.n, moment)
    q = checked(lloyd.quantize(w, format, dead), w)
    live = ((w - q.decode())[:, 32:] ** 2 * dead.power[32:]).sum()
    plain = ((w - lloyd.quantize(w, format).decode())[:, 32:] ** 2 * dead.power[32:]).sum()
    assert live < plain
    silent = Stats(0, stats.moment * 0)
    assert (lloyd.quantize(w, format, silent).codes == lloyd.quantize(w, format).codes).all()


def test_more_bits_never_hurt_and_finer_blocks_help() -> None:
    w = weights(9, 8, 128)
    errors = [mse(w, lloyd.quantize(w, named(f"codebook{b}", group="channel")).decode()) for b in range(1, 7)]
    assert all(b < a for a, b in itertools.pairwise(errors))
    by_block = [mse(w, lloyd.quantize(w, named("codebook2", group=g)).decode()) for g in ("tensor", "channel", 16)]
    assert by_block[0] > by_block[1] > by_block[2]


@pytest.mark.parametrize("block", [8, "channel"])
def test_chunks_change_nothing(block: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    w, stats, format = weights(11, 9, 64), calibration(11), named("codebook2", group=block)  # type: ignore[arg-type]
    whole = lloyd.quantize(w, format, stats)
    monkeypatch.setattr(lloyd, "CHUNK", 128)
    parts = lloyd.quantize(w, format, stats)
    assert (parts.codes == whole.codes).all() and (parts.table == whole.table).all()


@pytest.mark.parametrize("columns", [64, 60, 105])
def test_a_sample_of_a_large_tensor_meets_every_column(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    w = np.random.default_rng(13).normal(size=(600, columns)).astype(np.float32)
    stats, format = calibration(13, columns), named("codebook3", group="tensor")
    whole = lloyd.quantize(w, format)
    monkeypatch.setattr(lloyd, "CHUNK", 10000)
    flat, h = lloyd._sample(w.reshape(1, -1), stats.power, columns)
    assert 10000 / 3 < flat.shape[1] <= 10000
    assert set(np.unique(h)) == set(np.unique(stats.power)), "every input is seen"
    at = np.flatnonzero(np.isin(w.reshape(-1), flat)) % columns
    assert len(np.unique(at)) == columns
    sampled = checked(lloyd.quantize(w, format), w)
    assert mse(w, sampled.decode()) < 1.02 * mse(w, whole.decode())
    checked(lloyd.quantize(w, format, stats), w)


def test_a_fixed_grid_is_refused() -> None:
    with pytest.raises(RecipeError, match="no codebook to fit"):
        lloyd.quantize(weights(0), named("int4", group=64))
