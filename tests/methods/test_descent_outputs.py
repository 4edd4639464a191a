"""Two sides: tr(G E H E^T) falls from sweep to sweep, below what one side reaches, compiled or not."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
import torch

from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.qtensor import QTensor
from bitwright.errors import TensorError
from bitwright.methods import descent, registry
from bitwright.methods.descent import solver
from bitwright.methods.descent.outputs import NO_SLOPE, Outputs, weigh
from bitwright.methods.descent.scales import falling, solve
from bitwright.methods.method import Seen
from tests.methods.test_descent import SLACK, damped, objective
from tests.methods.test_gptq import inputs
from tests.methods.test_lloyd import weights
from tests.methods.test_mse import on_torch
from tests.methods.test_rtn import formats, label

ROWS = 80
"""More than one block of rows, and a part of one."""


def slopes(seed: int, rows: int = ROWS) -> np.ndarray:
    """G of outputs that go together and count very differently."""
    return np.asarray(inputs(seed + 100, rows).hessian)


def both(w: np.ndarray, q: QTensor, hessian: np.ndarray, curvature: np.ndarray, damping: float = 0.3) -> float:
    """tr(G E H E^T) with damped H and G, in double precision."""
    g = curvature.astype(np.float64)
    g += damping * np.diag(g).mean() * np.eye(len(g))
    error = w.astype(np.float64) - np.asarray(q.decode())
    return float(np.trace(g @ error @ hessian @ error.T))


def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it cannot be imported."""
    monkeypatch.setitem(sys.modules, "numba", None)
    for loops in ("core.compiled", "methods.descent.kernels"):
        monkeypatch.delitem(sys.modules, f"bitwright.{loops}", raising=False)
    monkeypatch.delattr(descent, "kernels", raising=False)


@pytest.fixture(params=["compiled", "plain"])
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With numba, and where it cannot be imported."""
    if request.param == "plain":
        without_numba(monkeypatch)
    assert (solver.compiled(np.zeros(1)) is None) == (request.param == "plain")
    return str(request.param)


@pytest.mark.parametrize("format", formats(), ids=label)
def test_falls_with_every_sweep_below_one_side(format: Format, road: str) -> None:
    w, stats, g = weights(1, ROWS), inputs(1), slopes(1)
    hessian = damped(stats)
    costs = []
    for sweeps in range(5):
        q = descent.quantize(w, format, stats, sweeps=sweeps, curvature=g)
        costs.append(both(w, q, hessian, g))
        assert np.isfinite(q.decode()).all() and q.codes.max() < 2**format.bits and q.codes.dtype == np.uint8
        assert (format.scale.round(q.scale, q.outer) == q.scale).all(), "not a number that is stored"
        assert q.notes == (() if road == "compiled" else (solver.PLAIN,))
    for before, after in itertools.pairwise(costs):
        assert after <= before * (1 + SLACK)
    assert costs[-1] < 0.999 * costs[0]
    one = descent.quantize(w, format, stats, sweeps=4)
    assert costs[-1] < 0.95 * both(w, one, hessian, g)
    assert objective(w, one, hessian).sum() < objective(w, q, hessian).sum(), "each is best at its own"


@pytest.mark.parametrize("format", formats(), ids=label)
def test_one_side_falls_as_far_without_a_compiler(format: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same visits in the same order: products in other blocks may decide a tie."""
    w, stats = weights(2, 24), inputs(2)
    compiled = descent.quantize(w, format, stats, sweeps=3)
    without_numba(monkeypatch)
    plain = descent.quantize(w, format, stats, sweeps=3)
    assert (compiled.codes == plain.codes).mean() > 0.9 and plain.notes == ()
    costs = [objective(w, q, damped(stats)).sum() for q in (compiled, plain)]
    assert costs[0] == pytest.approx(costs[1], rel=0.03)


@pytest.mark.parametrize("format", [named("int3", group=16), named("nvfp4"), named("int4", group="tensor")], ids=label)
def test_two_sides_without_a_compiler_cost_a_little_more(format: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    w, stats, g = weights(3, ROWS), inputs(3), slopes(3)
    found = {}
    for name in ("compiled", "plain"):
        if name == "plain":
            monkeypatch.setattr(solver, "compiled", lambda x: None)
        found[name] = both(w, descent.quantize(w, format, stats, curvature=g), damped(stats), g)
    one = both(w, descent.quantize(w, format, stats), damped(stats), g)
    assert found["compiled"] < found["plain"] < 0.9 * one


@pytest.mark.parametrize("format", formats(), ids=label)
def test_outputs_that_count_alike_are_one_side(format: Format, road: str) -> None:
    """G = 5 I: the same objective, and the same codes but for ties."""
    w, stats = weights(4, ROWS), inputs(4)
    two = descent.quantize(w, format, stats, curvature=5 * np.eye(ROWS, dtype=np.float32))
    one = descent.quantize(w, format, stats)
    assert (two.codes == one.codes).mean() > 0.9
    costs = [objective(w, q, damped(stats)).sum() for q in (one, two)]
    assert costs[0] == pytest.approx(costs[1], rel=0.02)


@pytest.mark.parametrize("name", ["int2", "nf4"])
def test_tiny_matrices_against_all_codes(name: str) -> None:
    """No single code could be better, and most matrices of 2 x 3 weights end at the best of all their codes."""
    ratios = []
    for seed in range(12):
        w, stats, g = weights(seed, 2, 3), inputs(seed, 3), slopes(seed, 2)
        format, hessian = named(name, group="tensor"), damped(stats)
        q = descent.quantize(w, format, stats, sweeps=20, curvature=g)
        found = both(w, q, hessian, g)
        levels = range(4) if name == "int2" else range(16)
        least = np.inf
        for place in range(6) if name == "nf4" else [None]:
            for codes in itertools.product(levels, repeat=1 if name == "nf4" else 6):
                other = q.codes.copy()
                if place is None:
                    other[:] = np.reshape(codes, (2, 3))
                else:
                    other[divmod(place, 3)] = codes[0]
                least = min(least, both(w, QTensor(format, other, q.scale, q.zero), hessian, g))
        ratios.append(found / least)
    assert min(ratios) >= 1 - SLACK
    assert max(ratios) <= 1 + SLACK if name == "nf4" else np.mean(np.array(ratios) <= 1 + SLACK) >= 0.5, ratios


def test_torch_without_a_compiler_is_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The form for a GPU's tensors, here in main memory."""
    monkeypatch.setattr(solver, "compiled", lambda x: None)
    monkeypatch.setattr("bitwright.core.array.LIGHT", 0)
    w, stats, g = weights(5, ROWS), inputs(5), slopes(5)
    for format in (named("int4", group=16, symmetric=False), named("nf4", group=16), named("mxfp4")):
        n = descent.quantize(w, format, stats, curvature=g)
        t = descent.quantize(torch.from_numpy(w), format, on_torch(stats), curvature=torch.from_numpy(g))
        assert isinstance(t.codes, torch.Tensor) and t.codes.dtype == torch.uint8
        assert n.notes == t.notes == (solver.PLAIN,)
        costs = [both(w, q, damped(stats), g) for q in (n, t)]
        assert costs[0] == pytest.approx(costs[1], rel=0.03)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_what_the_loss_says_nothing_of(library: str) -> None:
    """All zeros: one-sided, with a note. One label only: singular, and still finite. The method passes it on."""
    w, stats, g = weights(6, ROWS), inputs(6), np.zeros((ROWS, ROWS), np.float32)
    format = named("int4", group=16)

    def given(x: np.ndarray) -> np.ndarray | torch.Tensor:
        return x if library == "numpy" else torch.from_numpy(x)

    known = stats if library == "numpy" else on_torch(stats)
    one, none = (descent.quantize(given(w), format, known, curvature=c) for c in (None, given(g)))
    assert none.notes == (NO_SLOPE,) and one.notes == ()
    assert (np.asarray(one.codes) == np.asarray(none.codes)).all()
    slope = np.random.default_rng(6).normal(size=ROWS).astype(np.float32)
    single = np.outer(slope, slope)
    q = descent.quantize(given(w), format, known, curvature=given(single))
    assert np.isfinite(np.asarray(q.decode())).all() and q.notes == ()
    assert both(w, q, damped(stats), single) < 0.9 * both(w, one, damped(stats), single)
    method = registry.get("descent")
    asked = method.solve(given(w), format, Seen(known, curvature=given(single)), method.options())
    assert (np.asarray(asked.codes) == np.asarray(q.codes)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_slopes_that_are_not_finite_are_refused(value: float) -> None:
    g = slopes(0)
    g[3, 3] = value
    with np.errstate(over="ignore"), pytest.raises(TensorError, match="slopes of the loss at its outputs are not fin"):
        weigh(g * np.float32(10), ROWS, 0.3)


def test_curvature_of_another_shape_or_of_no_covariance_is_refused() -> None:
    with pytest.raises(TensorError, match=r"of its 12 outputs has shape \[80, 80\]"):
        weigh(slopes(0), 12, 0.3)
    with pytest.raises(TensorError, match="indefinite, with damping 1 too"):
        weigh(-slopes(0), ROWS, 0.3)


def test_given_curvature_stays_as_it_was() -> None:
    g = slopes(7)
    before = g.copy()
    outputs = weigh(g, ROWS, 0.3)
    assert isinstance(outputs, Outputs) and (g == before).all()
    share = outputs.across(10, 20)
    expected = outputs.curvature[10:20] / np.diagonal(outputs.curvature)[10:20, None]
    expected[np.arange(10), np.arange(10, 20)] = 0
    np.testing.assert_array_equal(share, expected)


def test_scales_of_rows_that_meet_are_solved_together() -> None:
    a = slopes(8, 12) + np.eye(12, dtype=np.float32) * slopes(8, 12).trace() / 12
    b = weights(8, 1, 12)[0]
    np.testing.assert_allclose(solve(a, b), np.linalg.solve(a, b), rtol=0.02, atol=1e-3 * np.abs(b / np.diag(a)).max())
    assert not solve(a, b * 0).any()


def test_rounded_scales_move_together_alone_or_not() -> None:
    curvature = np.array([[1, 0.9], [0.9, 1]], np.float32)
    one = np.ones(2, np.float32)
    assert falling(one, one * 1.5, curvature).tolist() == [True, True]
    assert falling(one, np.float32([1.2, 0.1]), curvature).tolist() == [True, False]
    assert falling(one, one * 0.6, curvature).tolist() == [False, False]
