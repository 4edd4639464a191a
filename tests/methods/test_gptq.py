"""Error feedback against a textbook GPTQ with the inverse Hessian, in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitwright.core import array
from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.measure import layer_error
from bitwright.core.qtensor import QTensor
from bitwright.core.stats import Stats
from bitwright.errors import RecipeError, TensorError
from bitwright.methods import gptq, mse, rtn
from tests.methods.test_lloyd import weights
from tests.methods.test_mse import on_torch
from tests.methods.test_rtn import formats, label

ORDERS = ["natural", "activation"]
BLOCKS = [16, "channel", "tensor"]


def inputs(seed: int, columns: int = 64, tokens: int = 400) -> Stats:
    """Calibration whose inputs are correlated, as those of a real layer are: without that there is nothing to feed."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(columns, columns)) * np.exp(-0.05 * np.arange(columns))[:, None]
    x = rng.normal(size=(tokens, columns)) @ mix * np.exp(rng.normal(0, 0.5, columns))
    return Stats.of(x.astype(np.float32))


def textbook(w: np.ndarray, stats: Stats, damping: float, format: Format, q: QTensor) -> np.ndarray:
    """Decoded weights by algorithm 1 of the GPTQ paper: natural order, the scales of `q`, no blocks, no batching."""
    w = w.astype(np.float64).copy()
    rows, columns = w.shape
    hessian = stats.moment.astype(np.float64) / stats.n
    hessian += damping * np.mean(np.diag(hessian)) * np.eye(columns)
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    groups = np.asarray(q.scale).shape[1]
    values = np.array([v for v in format.grid.values if v == v])
    out = np.zeros_like(w)
    for i in range(columns):
        g = i * groups // columns
        for r in range(rows):
            at = r if np.asarray(q.scale).shape[0] > 1 else 0
            zero = 0.0 if q.zero is None else float(q.zero[at, g])
            levels = (values - zero) * float(q.scale[at, g])
            out[r, i] = levels[np.abs(levels - w[r, i]).argmin()]
        error = (w[:, i] - out[:, i]) / upper[i, i]
        w[:, i:] -= np.outer(error, upper[i, i:])
    return out


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Share of weights that are equal; one tie that falls the other way may change all of its row after it."""
    return float((np.abs(np.asarray(a) - np.asarray(b)) <= 1e-5 * np.abs(b).max()).mean())


@pytest.mark.parametrize("damping", [0.01, 0.3])
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", ["int2", "int4", "int4-asymmetric", "nf4", "fp4", "fp8"])
def test_textbook(name: str, block: int | str, damping: float) -> None:
    """Float32 in LDL form against float64 with the inverse: equal but where a target lies next to half a step."""
    format = named(name.partition("-")[0], group=block, symmetric="asym" not in name)  # type: ignore[arg-type]
    shares = []
    for seed in range(3):
        w, stats = weights(seed, 8, 80), inputs(seed, 80)  # 80 columns: two and a half batches of columns
        q = gptq.quantize(w, format, stats, damping=damping, order="natural")
        shares.append(agreement(q.decode(), textbook(w, stats, damping, format, q)))
        plain = mse.quantize(w, format, stats)
        assert (q.scale == plain.scale).all(), "scales are those of the search, and never move"
        assert agreement(plain.decode(), q.decode()) < 0.99, "feedback does something"
    assert min(shares) >= 0.94 and np.mean(shares) >= 0.98, shares


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("format", formats(), ids=label)
def test_output_error_is_less_than_that_of_rounding(format: Format, order: str) -> None:
    """Not a theorem for one matrix: feedback can push a weight out of the grid's range. So over several, row by row."""
    ratios = []
    for seed in range(8):
        w, stats = weights(seed, 16), inputs(seed)

        def cost(q: QTensor, w: np.ndarray = w, stats: Stats = stats) -> list[float]:
            error, hessian = (w - q.decode()).astype(np.float64), stats.hessian.astype(np.float64)
            rows = [layer_error(row[None], hessian) for row in error]
            assert sum(rows) == pytest.approx(layer_error(error, hessian))
            return rows

        found = cost(gptq.quantize(w, format, stats, order=order))  # type: ignore[arg-type]
        ratios.append(np.divide(found, cost(rtn.quantize(w, format))))
        ratios.append(np.divide(found, cost(mse.quantize(w, format, stats))))
    of_rtn, of_mse = np.log(ratios[::2]), np.log(ratios[1::2])
    assert of_rtn.mean() < np.log(0.95) and (of_rtn.mean(axis=1) < 0).mean() >= 0.75
    assert of_mse.mean() < np.log(0.95) and (of_mse.mean(axis=1) < 0).mean() >= 0.75


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("columns", [16, 64, 80])
def test_factor_is_the_damped_hessian(columns: int, order: str) -> None:
    stats = inputs(2, columns)
    factor = gptq.factorise(stats, 0.02, order)
    power = np.diag(stats.moment).astype(np.float64) / stats.n
    hessian = stats.moment / stats.n + 0.02 * power.mean() * np.eye(columns)
    at = factor.order
    assert sorted(at.tolist()) == list(range(columns))
    if order == "natural":
        assert at.tolist() == list(range(columns))
    else:
        assert (np.diff(power[at]) <= 0).all()
    np.testing.assert_allclose(factor.hessian, hessian, rtol=1e-5, atol=1e-6 * power.max())
    u = factor.upper.astype(np.float64)
    assert (np.diag(u) == 1).all() and not np.tril(u, -1).any()
    inverse = np.linalg.inv(u)
    d = inverse @ factor.hessian[np.ix_(at, at)] @ inverse.T
    assert np.abs(d - np.diag(np.diag(d))).max() < 1e-4 * np.diag(d).max()
    assert factor.notes == ()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("format", formats(), ids=label)
def test_both_libraries(format: Format, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries' products and factorisations differ in the last bits, so a target next to half a step may fall
    the other way, and what follows in its row with it."""
    monkeypatch.setattr(array, "LIGHT", 0)  # few rows would take the NumPy road in both
    shares = []
    for seed in range(4):
        w, stats = weights(seed, 16), inputs(seed)
        q = gptq.quantize(w, format, stats, order=order)  # type: ignore[arg-type]
        t = gptq.quantize(torch.from_numpy(w), format, on_torch(stats), order=order)  # type: ignore[arg-type]
        assert isinstance(t.codes, torch.Tensor) and t.codes.dtype == torch.uint8
        assert np.isfinite(q.decode()).all() and q.codes.max() < 2**format.bits
        shares.append((t.codes.numpy() == q.codes).mean())
    assert np.mean(shares) >= 0.97, shares


@pytest.mark.parametrize("format", formats(), ids=label)
def test_few_rows_of_a_tensor_take_the_numpy_road(format: Format) -> None:
    w, stats = weights(5), inputs(5)
    factor = gptq.factorise(on_torch(stats))  # type: ignore[arg-type]
    as_numpy = gptq.Factor(factor.hessian.numpy(), factor.upper.numpy(), factor.order.numpy(), factor.rest.numpy())
    q = gptq.quantize(w, format, stats, factor=as_numpy)
    t = gptq.quantize(torch.from_numpy(w), format, on_torch(stats), factor=factor)
    assert isinstance(t.codes, torch.Tensor) and isinstance(t.scale, torch.Tensor)
    if (t.scale.numpy() == q.scale).all():  # else see test_mse.test_both_libraries
        assert (t.codes.numpy() == q.codes).all()
    else:
        assert (t.codes.numpy() == q.codes).mean() > 0.9


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("format", [f for f in formats() if f.block != "tensor"], ids=label)
def test_zero_rows_are_exact_zeros(format: Format, order: str) -> None:
    w = weights(7)
    w[1] = 0
    q = gptq.quantize(w, format, inputs(7), order=order)  # type: ignore[arg-type]
    assert not np.asarray(q.decode())[1].any() and np.asarray(q.decode())[0].any()


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_singular_hessian_is_damped_with_a_note(library: str) -> None:
    x = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    stats, w = Stats.of(x), weights(0)
    if library == "torch":
        stats, w = on_torch(stats), torch.from_numpy(w)  # type: ignore[assignment]
    for damping in (0.0, 1e-12, 1e-9):
        q = gptq.quantize(w, named("int4", group=16), stats, damping=damping)
        assert len(q.notes) == 1
        assert q.notes[0].startswith(f"singular Hessian: damping raised from {damping:g} to ")
        assert np.isfinite(np.asarray(q.decode())).all()
    assert gptq.quantize(w, named("int4", group=16), stats, damping=0.01).notes == ()


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(("value", "told"), [(np.inf, "overflow float32"), (np.nan, "overflow"), (-1.0, "indefinite")])
def test_moments_that_no_damping_helps_are_refused(value: float, told: str, library: str) -> None:
    moment = np.eye(64, dtype=np.float32)
    moment[0, 0] = 1 if value < 0 else value
    moment[:2, :2] += [[0, 1e3], [1e3, 0]] if value < 0 else 0
    stats, w = Stats(1, moment), weights(0)
    if library == "torch":
        stats, w = on_torch(stats), torch.from_numpy(w)  # type: ignore[assignment]
    with pytest.raises(TensorError, match=told):
        gptq.quantize(w, named("int4", group=16), stats)


def test_squares_alone_are_hardly_damped() -> None:
    """Of columns that are known each by itself none can be learnt by heart, however few tokens there were."""
    power = np.linspace(1, 2, 64, dtype=np.float32)
    assert gptq.damp(Stats.diagonal(power)) == 0.01
    assert gptq.damp(Stats(1, np.diag(power))) == 1.0


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_damping_rises_in_small_steps(library: str) -> None:
    moment = np.eye(64, dtype=np.float32)
    moment[:2, :2] = [[1, 1.02], [1.02, 1]]  # smallest eigenvalue -0.02
    stats = Stats(1, moment) if library == "numpy" else on_torch(Stats(1, moment))
    assert gptq.factorise(stats, 0.01).notes == ("singular Hessian: damping raised from 0.01 to 0.04",)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_silent_input_is_rounded_to_nearest_with_a_note(library: str) -> None:
    w, zero = weights(0), np.zeros((10, 64), np.float32)
    x, xs = (w, zero) if library == "numpy" else (torch.from_numpy(w), torch.from_numpy(zero))
    format = named("int4", group=16, symmetric=False)
    never = Stats(0, Stats.of(xs).moment * 0)
    for stats in (Stats.of(xs), never):
        q = gptq.quantize(x, format, stats)
        assert q.notes == ("the layer's input is all zeros: rounded to nearest",)
        assert (np.asarray(q.codes) == np.asarray(mse.quantize(x, format, stats).codes)).all()


def test_dead_inputs_do_no_harm() -> None:
    w, stats = weights(8), inputs(8)
    moment = stats.moment.copy()
    moment[16:32] = 0
    moment[:, 16:32] = 0
    dead = Stats(stats.n, moment)
    q = gptq.quantize(w, named("int4", group=16), dead)
    assert q.notes == () and np.isfinite(q.decode()).all()
    assert np.abs(q.decode()[:, 16:32] - w[:, 16:32]).max() <= np.abs(w).max() / 8


@pytest.mark.parametrize("name", ["int4", "int2", "nf4", "mxfp4"])
def test_stacked_matrices_share_a_factor(name: str) -> None:
    """Queries, keys and values see one input: done at once, they are what they are one by one."""
    format, stats = named(name, group=16), inputs(9)
    matrices = [weights(seed, rows) for seed, rows in ((1, 24), (2, 8), (3, 5))]
    factor = gptq.factorise(stats)
    whole = gptq.quantize(np.concatenate(matrices), format, stats, factor=factor)
    first = 0
    for w in matrices:
        part = whole.part(first, first + len(w))
        alone = gptq.quantize(w, format, stats)
        assert (part.scale == alone.scale).all() and part.shape == w.shape
        # A product over other rows may use another kernel: ties.
        assert (part.codes == alone.codes).mean() >= 0.97
        first += len(w)


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(RecipeError, match="needs calibration data"):
        gptq.quantize(weights(0), named("int4", group=16))
    with pytest.raises(RecipeError, match="cannot fit the codebook of codebook4"):
        gptq.quantize(weights(0), named("codebook4", group=16), inputs(0))
