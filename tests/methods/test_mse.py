"""Scale search against the loss it claims to minimise, tried one candidate at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.qtensor import QTensor, encode
from bitwright.core.stats import Stats
from bitwright.methods import mse, rtn
from tests.methods.test_lloyd import calibration, weights
from tests.methods.test_rtn import formats, label

few = settings(max_examples=5, deadline=None)
seeds = st.integers(0, 2**32)


def losses(w: np.ndarray, q: QTensor, power: np.ndarray | None) -> np.ndarray:
    """Weighted squared error of each block, in double precision."""
    error = (w.astype(np.float64) - np.asarray(q.decode())) ** 2
    return q.format.blocks(error if power is None else error * power.astype(np.float64)).sum(axis=-1)


def on_torch(stats: Stats | None) -> Stats | None:
    return stats and Stats(stats.n, torch.from_numpy(np.array(stats.moment)))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("format", formats(), ids=label)
@few
@given(seed=seeds)
def test_never_more_error_than_the_full_range_in_any_block(format: Format, weighted: bool, seed: int) -> None:
    w, stats = weights(seed), calibration(seed) if weighted else None
    # One block per tensor is searched by plain squared error: it has no single set of inputs.
    power = None if stats is None or format.block == "tensor" else stats.power
    full, found = losses(w, rtn.quantize(w, format), power), losses(w, mse.quantize(w, format, stats), power)
    assert (found <= full * (1 + 1e-5)).all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("block", [16, "channel", "tensor"])
def test_the_best_of_all_candidates(block: int | str, symmetric: bool, weighted: bool) -> None:
    format = named("int3", group=block, symmetric=symmetric)  # type: ignore[arg-type]
    w, stats = weights(4), calibration(4) if weighted else None
    power = None if stats is None or block == "tensor" else stats.power
    tried = []
    for shrink in np.linspace(1, 0.3, 15):
        scale, zero = rtn.ranges(format.blocks(w), format, float(shrink))
        tried.append(losses(w, encode(w, format, format.scale.round(scale), zero), power))
    found = losses(w, mse.quantize(w, format, stats, steps=15, least=0.3), power)
    np.testing.assert_allclose(found, np.min(tried, axis=0), rtol=1e-4)
    assert found.sum() < 0.97 * tried[0].sum(), "clipping helps three bits of a heavy-tailed weight"


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4"])
def test_a_range_may_end_at_the_second_largest_value(name: str) -> None:
    """Four over six: FP4 has nothing between 4 and 6, so 5 is worth a scale of 5/4, and 6 one of 6/6."""
    w = np.zeros((3, 32), np.float32)
    w[0, :16], w[0, 16:] = [4, 3, 2, 1] * 4, [6, 4, 3, 1] * 4
    w[1, ::4], w[1, 1::4], w[1, 2::4] = 8.0, 6.0, 4.0
    w[2] = 448 * 6  # the factor of the whole tensor makes whole scales legal
    if name == "mxfp4":
        w = w[:2]
    q = mse.quantize(w, named(name))
    np.testing.assert_allclose(np.asarray(q.decode()), w, rtol=1e-6)
    plain = rtn.quantize(w, named(name))
    assert np.abs(np.asarray(plain.decode()) - w).max() > 0.1


def test_even_grids_are_searched_downwards_alone() -> None:
    assert mse.shares(named("int4").grid, 3, 0.5) == [1, 0.75, 0.5]
    assert mse.shares(named("mxfp4").grid, 3, 0.5) == [1, 0.75, 0.5, 1.25, 1.5]


def test_weighting_buys_weighted_error() -> None:
    w, stats = weights(1, 32, 256), calibration(1, 256)
    format = named("int3", group=64)
    plain, weighted = mse.quantize(w, format), mse.quantize(w, format, stats)
    assert losses(w, weighted, stats.power).sum() < losses(w, plain, stats.power).sum()
    assert losses(w, plain, None).sum() < losses(w, weighted, None).sum()


@pytest.mark.parametrize("format", formats(), ids=label)
def test_both_libraries(format: Format) -> None:
    """Two candidates may lose by sums that differ in the last bit only, and each library adds in its own order: the
    scale of a rare block may differ, its loss may not."""
    for seed in range(4):
        w, stats = weights(seed, 16, 64), calibration(seed)
        power = None if format.block == "tensor" else stats.power
        q, t = mse.quantize(w, format, stats), mse.quantize(torch.from_numpy(w), format, on_torch(stats))
        assert (t.codes.numpy() == q.codes).mean() >= 0.98
        assert (t.scale.numpy() == q.scale).mean() >= 0.98
        np.testing.assert_allclose(losses(w, t, power), losses(w, q, power), rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("format", [named("int4", group=16, symmetric=False), named("nvfp4")], ids=label)
def test_chunks_change_nothing(format: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    w, stats = weights(6, 9), calibration(6)
    whole = mse.quantize(w, format, stats)
    monkeypatch.setattr(mse, "CHUNK", 130)
    parts = mse.quantize(w, format, stats)
    assert (parts.codes == whole.codes).all() and (parts.scale == whole.scale).all() and parts.outer == whole.outer


@pytest.mark.parametrize("format", formats(), ids=label)
def test_zeros(format: Format) -> None:
    w = weights(3)
    w[1] = 0
    silent = Stats(0, np.zeros((64, 64), np.float32))
    for stats in (None, silent, calibration(3)):
        q = mse.quantize(w, format, stats)
        assert np.isfinite(q.decode()).all() and np.isfinite(q.scale).all()
        assert not np.asarray(mse.quantize(w * 0, format, stats).decode()).any()
        if format.block != "tensor":
            assert not np.asarray(q.decode())[1].any()
