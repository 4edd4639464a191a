"""Coordinate descent: the objective only falls, and where it ends no single code or scale can lower it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core import array
from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.qtensor import QTensor, encode
from bitwright.core.stats import Stats
from bitwright.errors import RecipeError
from bitwright.methods import descent, gptq
from bitwright.methods.descent import solver
from bitwright.methods.descent.scales import visit_scales
from tests.methods.test_gptq import BLOCKS, ORDERS, inputs
from tests.methods.test_lloyd import weights
from tests.methods.test_mse import on_torch
from tests.methods.test_rtn import formats, label

few = settings(max_examples=8, deadline=None)
seeds = st.integers(0, 2**32)
SLACK = 1e-5
"""Share of the objective by which float32 sums may be off."""


def damped(stats: Stats, damping: float | None = None) -> np.ndarray:
    """H + damping * mean(diag H) * I in double precision, columns as they stand."""
    damping = gptq.damp(stats) if damping is None else damping
    hessian = np.asarray(stats.moment, np.float64) / stats.n
    return hessian + damping * np.diag(hessian).mean() * np.eye(len(hessian))


def objective(w: np.ndarray, q: QTensor | np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """e H e^T of each row, whose sum is tr(E H E^T)."""
    error = w.astype(np.float64) - np.asarray(q.decode() if isinstance(q, QTensor) else q)
    return ((error @ hessian) * error).sum(axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("format", formats(), ids=label)
def test_objective_never_rises(format: Format, order: str) -> None:
    """Row by row, from GPTQ's codes through every sweep, in the damped Hessian that both methods minimise."""
    for seed in range(2):
        w, stats = weights(seed, 8), inputs(seed)
        factor, hessian = gptq.factorise(stats, None, order), damped(stats)
        start = gptq.quantize(w, format, stats, order=order)  # type: ignore[arg-type]
        costs = [objective(w, start, hessian)]
        for sweeps in range(5):
            q = solver.refine(w, start, factor, sweeps)
            again = descent.quantize(w, format, stats, order=order, sweeps=sweeps)  # type: ignore[arg-type]
            assert (again.codes == q.codes).all() and (again.scale == q.scale).all()
            costs.append(objective(w, q, hessian))
            assert np.isfinite(q.decode()).all() and q.codes.max() < 2**format.bits
        for before, after in itertools.pairwise(costs):
            assert (after <= before * (1 + SLACK) + 1e-12).all()
        assert costs[-1].sum() < 0.995 * costs[0].sum(), "and it does fall"


@pytest.mark.parametrize("order", ORDERS)
def test_no_sweeps_is_gptq(order: str) -> None:
    for format in formats():
        w, stats = weights(1), inputs(1)
        start = gptq.quantize(w, format, stats, order=order)  # type: ignore[arg-type]
        q = descent.quantize(w, format, stats, order=order, sweeps=0)  # type: ignore[arg-type]
        assert (q.scale == start.scale).all() and (q.decode() == start.decode()).all()


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", ["int2", "int4", "int3-asymmetric", "nf4", "midrise2", "ternary"])
def test_ends_where_no_single_code_can_be_better(name: str, block: int | str) -> None:
    """Every code of a small matrix, moved one level up and down, by brute force; and every scale, to its neighbour."""
    format = named(name.partition("-")[0], group=block, symmetric="asym" not in name)  # type: ignore[arg-type]
    w, stats = weights(2, 3, 48), inputs(2, 48)
    hessian, levels = damped(stats), len(format.grid.values)
    factor = gptq.factorise(stats)
    q = solver.refine(w, gptq.quantize(w, format, stats), factor, 60)
    settled = solver.refine(w, q, factor, 1)
    assert (settled.codes == q.codes).all() and (settled.scale == q.scale).all(), "not at rest yet"
    least = objective(w, q, hessian)
    rounded = encode(w, format, q.scale, q.zero)

    def better(q: QTensor, least: np.ndarray) -> int:
        found = 0
        for row, column, step in itertools.product(range(3), range(48), (-1, 1)):
            code = int(q.codes[row, column]) + step
            if 0 <= code < levels:
                codes = q.codes.copy()
                codes[row, column] = code
                moved = QTensor(format, codes, q.scale, q.zero, outer=q.outer)
                found += int(objective(w, moved, hessian)[row] < least[row] * (1 - SLACK))
        return found

    assert better(q, least) == 0
    assert better(rounded, objective(w, rounded, hessian)) > 0, "rounding alone is not there"
    if block == "tensor":
        return  # a scale that all rows share stays as it is
    for row, group, toward in itertools.product(range(3), range(q.scale.shape[1]), (-np.inf, np.inf)):
        scale = q.scale.copy()
        scale[row, group] = np.nextafter(np.float16(scale[row, group]), np.float16(toward))
        moved = QTensor(format, q.codes, scale, q.zero)
        assert objective(w, moved, hessian)[row] >= least[row] * (1 - SLACK)


@pytest.mark.parametrize("size", [1, 1e-7])
@pytest.mark.parametrize("format", [f for f in formats() if f.block != "tensor"], ids=label)
def test_scales_move_only_where_the_objective_falls(format: Format, size: float) -> None:
    """One visit of the scales, codes as they are: what moved got better, the rest is untouched, all can be stored.

    They start off their best, so that some lie between two powers of two; tiny ones may end below the least number.
    """
    w, stats = weights(3, 64) * np.float32(size), inputs(3)
    hessian, factor = damped(stats), gptq.factorise(stats)
    start = gptq.quantize(w, format, stats)
    off = np.exp(np.random.default_rng(3).normal(0, 0.5, start.scale.shape)).astype(np.float32)
    start = replace(start, scale=format.scale.round(start.scale * off, start.outer))
    steps = gptq.Steps.of(format, start.scale, start.zero, np.arange(64), 64, 64)
    values, decoded = format.grid.decode(start.codes).T, start.decode().T
    pull = factor.hessian @ (w.T - decoded)
    visit_scales(values, decoded, pull, factor.hessian, steps, start.outer)
    scale = np.asarray(steps.scale.T)
    q = QTensor(format, start.codes, scale, start.zero, outer=start.outer)
    before, after = objective(w, start, hessian), objective(w, q, hessian)
    moved = (scale != start.scale).any(axis=1)
    assert moved.any() or size < 1
    assert (after[moved] <= before[moved] * (1 + SLACK)).all()
    assert after.sum() < before.sum() or not moved.any()
    assert (after[~moved] == before[~moved]).all()
    assert (scale * start.scale >= 0).all(), "a sign never turns"
    assert (format.scale.round(scale, start.outer) == scale).all(), "not a number that is stored"
    # The running arrays still agree with the codes and scales that they stand for.
    np.testing.assert_array_equal(decoded, q.decode().T)
    remade = factor.hessian.astype(np.float64) @ (w - q.decode()).T.astype(np.float64)
    if size == 1:  # a tiny scale moved off its best may be stored as 1: nothing of the weights is left beside that
        np.testing.assert_allclose(pull, remade, atol=1e-4 * np.abs(remade).max())


@few
@given(seed=seeds, block=st.sampled_from(["channel", "tensor"]), symmetric=st.booleans())
def test_order_of_the_inputs_does_not_matter(seed: int, block: str, symmetric: bool) -> None:
    """Columns go by input power, so shuffled inputs give shuffled weights; only the scale search adds in another
    order, which may decide between two equally good scales of a rare row."""
    format = named("int3", group=block, symmetric=symmetric)  # type: ignore[arg-type]
    w, stats = weights(seed, 16), inputs(seed)
    at = np.random.default_rng(seed).permutation(64)
    shuffled = Stats(stats.n, stats.moment[np.ix_(at, at)])
    q = descent.quantize(w, format, stats, sweeps=2)
    s = descent.quantize(np.ascontiguousarray(w[:, at]), format, shuffled, sweeps=2)
    same = (q.decode()[:, at] == s.decode()).all(axis=1)
    assert same.mean() >= 0.8 or (block == "tensor" and q.scale[0, 0] != s.scale[0, 0])
    natural = descent.quantize(w[:, at], format, shuffled, order="natural").decode()
    assert not (descent.quantize(w, format, stats, order="natural").decode()[:, at] == natural).all()


@pytest.mark.parametrize("format", formats(), ids=label)
def test_both_libraries(format: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for GPTQ, products and factorisations differ in the last bits, so codes of a row may part after a tie; what
    they cost may hardly differ."""
    monkeypatch.setattr(array, "LIGHT", 0)
    shares, costs = [], []
    for seed in range(4):
        w, stats = weights(seed, 16), inputs(seed)
        q = descent.quantize(w, format, stats, sweeps=2)
        t = descent.quantize(torch.from_numpy(w), format, on_torch(stats), sweeps=2)
        assert isinstance(t.codes, torch.Tensor) and t.codes.dtype == torch.uint8
        assert isinstance(t.scale, torch.Tensor) and t.scale.dtype == torch.float32
        shares.append((t.codes.numpy() == q.codes).mean())
        costs.append([objective(w, each, damped(stats)).sum() for each in (q, t)])
    assert np.mean(shares) >= 0.96, shares
    np.testing.assert_allclose(*np.transpose(costs), rtol=0.02)


@pytest.mark.parametrize("format", [named("int4", group=16), named("nf4", group=16)], ids=label)
def test_what_was_given_stays_as_it_was(format: Format) -> None:
    """In-place sweeps work on copies, also where a torch tensor is only viewed as a NumPy array."""
    w, stats = torch.from_numpy(weights(4)), on_torch(inputs(4))
    assert stats is not None
    factor = gptq.factorise(stats)
    start = gptq.quantize(w, format, stats, factor=factor)
    held = (w, stats.moment, factor.hessian, factor.upper, factor.order, start.codes, start.scale)
    copies = [x.clone() for x in held]
    q = solver.refine(w, start, factor, 3)
    assert (q.scale != start.scale).any() and (q.codes != start.codes).any()
    assert all(torch.equal(a, b) for a, b in zip(held, copies, strict=True))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("format", [f for f in formats() if f.block != "tensor"], ids=label)
def test_zero_rows_are_exact_zeros(format: Format, order: str) -> None:
    w = weights(7)
    w[1] = 0
    q = descent.quantize(w, format, inputs(7), order=order, sweeps=3)  # type: ignore[arg-type]
    assert not np.asarray(q.decode())[1].any() and np.asarray(q.decode())[0].any()


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_notes_and_finite_codes_where_the_input_says_little(library: str) -> None:
    w = weights(0)
    thin = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    for x, damping, note in (
        (thin, 1e-9, "singular Hessian: damping raised from 1e-09 to "),
        (thin * 0, 0.01, "the layer's input is all zeros: rounded to nearest"),
    ):
        for format in (named("int4", group=16, symmetric=False), named("nvfp4"), named("midrise2", group=16)):
            stats = Stats.of(x if library == "numpy" else torch.from_numpy(x))
            both = w if library == "numpy" else torch.from_numpy(w)
            q = descent.quantize(both, format, stats, damping=damping, sweeps=2)
            assert len(q.notes) == 1 and q.notes[0].startswith(note)
            assert np.isfinite(np.asarray(q.decode())).all()
            assert int(q.codes.max()) < 2**format.bits


@pytest.mark.parametrize("name", ["int4", "int2", "nf4", "mxfp4"])
def test_stacked_matrices_share_a_factor(name: str) -> None:
    format, stats = named(name, group=16), inputs(9)
    matrices = [weights(seed, rows) for seed, rows in ((1, 24), (2, 8), (3, 5))]
    factor = gptq.factorise(stats)
    whole = descent.quantize(np.concatenate(matrices), format, stats, factor=factor)
    first = 0
    for w in matrices:
        part = whole.part(first, first + len(w))
        alone = descent.quantize(w, format, stats)
        # A product over other rows may use another kernel: ties.
        assert (part.codes == alone.codes).mean() >= 0.97
        assert (part.scale == alone.scale).mean() >= 0.97
        first += len(w)


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(RecipeError, match="needs calibration data"):
        descent.quantize(weights(0), named("int4", group=16))
    with pytest.raises(RecipeError, match="cannot fit the codebook of codebook4"):
        descent.quantize(weights(0), named("codebook4", group=16), inputs(0))
