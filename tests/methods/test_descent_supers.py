"""Formats with factors and shifts: all that they leave free is chosen, and each choice lowers the layer's objective."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.grid import INT, UINT, Grid
from bitwright.core.qtensor import QTensor
from bitwright.core.scaling import NUMBERS, Levels
from bitwright.core.stats import Stats
from bitwright.errors import RecipeError
from bitwright.methods import descent, mse, registry
from bitwright.methods.descent import solver, trials
from bitwright.methods.descent.loops import Loops
from bitwright.methods.descent.plain import SETTLED
from bitwright.methods.descent.structure import Structure, suits
from bitwright.methods.descent.supers import Scales, start
from bitwright.methods.method import Seen
from tests.methods.test_descent import SLACK, damped, objective
from tests.methods.test_descent_outputs import ROWS, both, road, slopes
from tests.methods.test_gptq import inputs
from tests.methods.test_lloyd import weights
from tests.methods.test_mse import on_torch
from tests.methods.test_rtn import formats

__all__ = ["road"]
COLUMNS = 512
UNEVEN = Grid("uneven4", tuple(map(float, (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113))))
"""The values of llama.cpp's IQ4_NL and IQ4_XS (`kvalues_iq4nl`)."""
ONE, OFFSETS = Levels.of((32, "fp16")), Levels.of((32, "fp16"), zeros=True)
MADE = [
    Format("with_shifts4", UINT[4], ONE, shift=OFFSETS),
    Format("with_shifts5", UINT[5], ONE, shift=OFFSETS),
    Format("uneven", UNEVEN, Levels.of((32, "fp16"), zeros=True)),
    Format("uneven_factors", UNEVEN, Levels.of((32, "i6"), (256, "fp16"), zeros=True)),
    Format("per_row", INT[4], Levels.of((16, "i8"), ("channel", "bf16"))),
]
FORMATS = [*(named(name) for name in ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k")), *MADE]
ALIKE = Stats(COLUMNS * 100, np.eye(COLUMNS, dtype=np.float32) * COLUMNS * 100)
"""Inputs of which each goes by itself, H = I."""
FEW = [named("q2_k"), named("q6_k"), MADE[0], MADE[3]]


def name_of(format: Format) -> str:
    return format.name


def require_stored(q: QTensor) -> None:
    """Every number of `q` is one that the format stores, and decodes to what `decode` says."""
    format = q.format
    assert q.codes.dtype == np.uint8 and q.codes.max() < 2**format.bits and np.isfinite(q.decode()).all()
    assert (format.scale.round(q.scale, q.outer) == q.scale).all()
    blocks = format.grid.decode(format.blocks(q.codes)) * q.scale[..., None]
    if format.shift is not None:
        assert (format.shift.round(q.shift, q.shift_outer) == q.shift).all()
        blocks = blocks + q.shift[..., None]
    assert (blocks.reshape(q.shape) == q.decode()).all()
    for levels, numbers, factors in ((format.scale, q.scale, q.outer), (format.shift, q.shift, q.shift_outer)):
        for factor in factors:
            number = levels.levels[0].number
            whole = numbers / np.repeat(factor, numbers.shape[1] // factor.shape[1], axis=1)
            assert (factor != 0).all() and (levels.levels[1].number.round(factor) == factor).all()
            assert (whole == whole.round()).all() and whole.min() >= number.low and whole.max() <= number.high


def plain_fit(w: np.ndarray, format: Format, steps: int = 60) -> QTensor:
    """Of `steps` shares of each block's range the one with the least squared error; factors from the whole range."""
    x = format.blocks(w)
    low, high = x.min(axis=-1).clip(None, 0), x.max(axis=-1)
    wide = (high - low) / (format.grid.high - format.grid.low)
    outer, around = format.scale.fit(wide), format.shift.fit(low)
    best = None
    for share in np.linspace(0.4, 1.1, steps, dtype=np.float32):
        scale = format.scale.round(wide * share, outer)
        shift = format.shift.round(low + (high - low) * (1 - share) / 2 * (share < 1), around)
        codes = format.grid.nearest((x - shift[..., None]) / scale[..., None])
        loss = ((format.grid.decode(codes) * scale[..., None] + shift[..., None] - x) ** 2).sum(axis=-1)
        if best is None:
            best = [loss, codes, scale, shift]
        better = loss < best[0]
        for old, new in zip(best, (loss, codes, scale, shift), strict=True):
            old[better] = new[better]
    _, codes, scale, shift = best
    return QTensor(format, codes.reshape(w.shape), scale, shift=shift, outer=outer, shift_outer=around)


def searched(w: np.ndarray, format: Format) -> QTensor:
    """The least squared error of plain search."""
    return mse.quantize(w, format, steps=60, least=0.4) if format.shift is None else plain_fit(w, format)


def test_these_formats_and_no_others_choose_scales_in_turn() -> None:
    """What has one level and no shift is written as before."""
    assert all(suits(format) for format in FORMATS)
    before = [*formats(), named("codebook4"), named("trellis2"), named("fp8")]
    assert not any(suits(format) for format in before)
    others = [
        Format("a", UINT[4], ONE, shift=Levels.of((32, "u6"), (256, "fp16"), zeros=True)),
        Format("b", UINT[4], Levels.of((32, "e4m3"), (256, "fp16")), shift=OFFSETS),
        Format("c", UINT[4], Levels.of((32, "fp16")), shift=Levels.of((32, "bf16"), zeros=True)),
        Format("d", UINT[4], ONE, shift=ONE),
    ]
    for format in others:
        assert "the shifts of" in str(descent.fits(format))
        with pytest.raises(RecipeError, match="shifts"):
            descent.quantize(weights(0, 2, COLUMNS), format, inputs(0, COLUMNS))
    assert all(registry.get("descent").fits(format) is None for format in (*FORMATS, *formats()))


def test_blocks_stay_whole_in_the_order_of_visits() -> None:
    for format in FORMATS:
        shape = Structure(format, COLUMNS)
        power = np.random.default_rng(0).exponential(size=COLUMNS).astype(np.float32)
        order = shape.order(power)
        assert (np.sort(order) == np.arange(COLUMNS)).all()
        assert (np.asarray(shape.order(torch.from_numpy(power))) == order).all()
        for size, around in ((shape.width, COLUMNS), (shape.size, shape.width), (1, shape.size)):
            blocks = order.reshape(-1, size) // size
            assert (blocks == blocks[:, :1]).all()
            means = power[order].reshape(-1, around // size, size).mean(axis=-1)
            assert (np.diff(means, axis=1) <= 1e-6).all()
    stats = inputs(0, COLUMNS)
    factor = descent.factorise(stats, named("int4"))
    with pytest.raises(ValueError, match="q4_k visits whole blocks of 256 columns"):
        descent.quantize(weights(0, 2, COLUMNS), named("q4_k"), stats, factor=factor)


@pytest.mark.parametrize("type", ["fp16", "bf16", "fp32"])
def test_factors_round_as_they_are_stored(type: str) -> None:
    number, rng = NUMBERS[type], np.random.default_rng(1)
    rules = Structure(Format("f", INT[4], Levels.of((16, "i8"), ("channel", type))), 64).rules()
    x = rng.normal(size=4000) * np.exp2(rng.integers(-30, 20, 4000))
    ties = np.exp2(rng.integers(-20, 10, 500)) * (1 + (2 * rng.integers(0, 128, 500) + 1) * 2.0**-number.digits)
    edge = [65504, 65519.9, 65520, 1e30, 2.0**-24, 2.0**-25, 3 * 2.0**-25, 1e-30, 6.1e-5]
    x = np.concatenate([x, ties, edge, np.negative(edge)]).astype(np.float32)
    with np.errstate(over="ignore"):
        wanted = number.round(x)
    wanted = np.where(wanted == 0, np.copysign(np.float32(number.finest), x), wanted)
    np.testing.assert_array_equal([trials.stored(each, rules) for each in x], wanted)


def test_scales_beyond_the_largest_stay_the_largest() -> None:
    """A late block may want more than its super-block's factor can reach: not nothing."""
    rules, table = Structure(named("q4_k"), 256).rules(), np.zeros((15, trials.LANES), np.float32)
    one = np.float32(1)
    count = trials.near(one * 1000, -one, one, one, one, -one, rules, table, 0)
    tried = table[trials.SCALE, :count]
    assert tried.max() == 63 and tried.min() >= 60
    count = trials.near(one * 1e-6, -one, one, one, one, -one, rules, table, 0)
    assert table[trials.SCALE, :count].min() == 1, "a scale of 0 is not stored"


@pytest.mark.parametrize("format", FORMATS, ids=name_of)
def test_one_side_falls_with_every_sweep(format: Format, road: str) -> None:
    """Row by row, below what a plain fit of the weights reaches, though that is closer to the given ones."""
    w, stats = weights(1, 6, COLUMNS), inputs(1, COLUMNS)
    hessian, costs = damped(stats), []
    for sweeps in range(4):
        q = descent.quantize(w, format, stats, sweeps=sweeps)
        require_stored(q)
        assert q.notes == (() if road == "compiled" else (SETTLED,))
        costs.append(objective(w, q, hessian))
    for before, after in itertools.pairwise(costs):
        assert (after <= before * (1 + SLACK)).all()
    assert costs[-1].sum() < 0.99 * costs[0].sum()
    fitted = descent.quantize(w, format, ALIKE)
    assert costs[-1].sum() < 0.7 * objective(w, fitted, hessian).sum()
    assert ((q.decode() - w) ** 2).sum() > ((fitted.decode() - w) ** 2).sum()


@pytest.mark.parametrize("format", FORMATS, ids=name_of)
def test_two_sides_fall_with_every_sweep_below_one(format: Format, road: str) -> None:
    w, stats, g = weights(2, ROWS, COLUMNS), inputs(2, COLUMNS), slopes(2)
    hessian, costs = damped(stats), []
    for sweeps in range(3):
        q = descent.quantize(w, format, stats, sweeps=sweeps, curvature=g)
        require_stored(q)
        assert q.notes == (() if road == "compiled" else (SETTLED, solver.PLAIN))
        costs.append(both(w, q, hessian, g))
    for before, after in itertools.pairwise(costs):
        assert after <= before * (1 + SLACK)
    one = descent.quantize(w, format, stats, sweeps=2)
    assert costs[-1] < 0.95 * both(w, one, hessian, g)
    assert objective(w, one, hessian).sum() < objective(w, q, hessian).sum(), "each is best at its own"


@pytest.mark.parametrize("format", FORMATS, ids=name_of)
def test_scales_chosen_anew_are_never_worse_than_fixed_ones(format: Format) -> None:
    """One visit lowers the objective of every row that it changes; with visits, sweeps end below sweeps without."""
    w, stats = weights(3, 8, COLUMNS), inputs(3, COLUMNS)
    hessian, shape = damped(stats), Structure(format, COLUMNS)
    factor = descent.factorise(stats, format)
    ends = []
    for visits in (True, False):
        scales = Scales.empty(shape, w)
        loops = Loops(scales, factor, None)
        values = start(w, loops, factor, None, shape.width)
        decoded = scales.qtensor(values, ()).decode()
        pull = (w - decoded) @ factor.hessian
        for _ in range(3):
            if visits:
                before = objective(w, decoded, hessian)
                loops.visit_scales(values, decoded, pull)
                after = objective(w, decoded, hessian)
                assert (after <= before * (1 + SLACK)).all()
                np.testing.assert_allclose(pull, (w - decoded) @ factor.hessian, atol=1e-4 * np.abs(pull).max())
            loops.visit_codes(values, decoded, pull)
        q = scales.qtensor(values, ())
        np.testing.assert_array_equal(q.decode(), decoded)
        ends.append(objective(w, q, hessian).sum())
    assert ends[0] < ends[1]


@pytest.mark.parametrize("format", FORMATS, ids=name_of)
def test_inputs_that_do_not_go_together_leave_a_plain_fit(format: Format) -> None:
    """H = I: at least as good as a fine search of each block's range."""
    w = weights(4, 12, COLUMNS)
    q = descent.quantize(w, format, ALIKE)
    found, least = (((w - each.decode()) ** 2).sum() for each in (q, searched(w, format)))
    assert found < least


@pytest.mark.parametrize("format", FORMATS, ids=name_of)
@pytest.mark.parametrize("sides", [1, 2])
def test_rows_at_the_edge_of_what_can_be_stored(format: Format, sides: int, road: str) -> None:
    """Too small for factors of fp16, too large, all zeros, constant, of one sign, one outlier: finite and stored."""
    w, stats = weights(5, 12, COLUMNS), inputs(5, COLUMNS)
    w[0] = 0
    w[1] *= np.float32(1e-7 / np.abs(w[1]).max())
    w[2] *= np.float32(2e6 / np.abs(w[2]).max())
    w[3] *= np.float32(1e30 / np.abs(w[3]).max())
    w[4], w[5] = 0.03, -0.03
    w[6] = 0
    w[6, 77] = 5
    w[7], w[8] = np.abs(w[7]) + 1, -np.abs(w[8]) - 1
    w[9] *= np.float32(1e-30)
    w[10, :256] = 0
    curvature = slopes(5, 12) if sides == 2 else None
    with np.errstate(over="ignore", invalid="ignore"):
        q = descent.quantize(w, format, stats, sweeps=2, curvature=curvature)
        require_stored(q)
    decoded = q.decode()
    if sides == 1:
        assert not decoded[0].any() and decoded[10, 256:].any()
        assert np.abs(decoded[9]).max() < 1e-5
        assert (np.abs(decoded[1]) <= 1e-6).all()
        for row in (4, 5):
            assert objective(w, q, damped(stats))[row] < 0.01 * objective(w, 0 * decoded, damped(stats))[row]
        if format.shift is not None:
            for row in (7, 8):
                tight = ((decoded[row] - w[row]) ** 2).mean() / w[row].var()
                assert tight < 0.2, "a shift of the row's own sign"
        assert objective(w, q, damped(stats))[11] < 0.2 * objective(w, 0 * decoded, damped(stats))[11]


@pytest.mark.parametrize("format", FEW, ids=name_of)
def test_plain_arrays_come_close(format: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a fourth on one side, on both well below one side; and the same for both libraries, but for ties."""
    w, stats, g = weights(6, ROWS, 256), inputs(6, 256), slopes(6)
    for curvature in (None, g):
        torches = None if curvature is None else torch.from_numpy(curvature)
        compiled = descent.quantize(w, format, stats, curvature=curvature, sweeps=2)
        as_torch = descent.quantize(torch.from_numpy(w), format, on_torch(stats), curvature=torches, sweeps=2)
        with monkeypatch.context() as absent:
            absent.setattr(solver, "compiled", lambda x: None)
            plain = descent.quantize(w, format, stats, curvature=curvature, sweeps=2)
            other = descent.quantize(torch.from_numpy(w), format, on_torch(stats), curvature=torches, sweeps=2)
        if curvature is None:
            one = plain
        weighed = np.eye(ROWS) if curvature is None else g
        found = [both(w, q, damped(stats), weighed) for q in (compiled, as_torch, plain, other)]
        assert isinstance(other.codes, torch.Tensor) and isinstance(other.scale, torch.Tensor)
        assert found[0] == pytest.approx(found[1], rel=0.02) and found[2] == pytest.approx(found[3], rel=0.02)
        assert found[0] < found[2]
        assert found[2] < (1.25 * found[0] if curvature is None else 0.9 * both(w, one, damped(stats), g))


@pytest.mark.parametrize("format", FEW, ids=name_of)
def test_outputs_that_count_alike_are_one_side(format: Format) -> None:
    w, stats = weights(7, ROWS, COLUMNS), inputs(7, COLUMNS)
    two = descent.quantize(w, format, stats, curvature=5 * np.eye(ROWS, dtype=np.float32))
    one = descent.quantize(w, format, stats)
    assert (two.codes == one.codes).mean() > 0.9
    costs = [objective(w, q, damped(stats)).sum() for q in (one, two)]
    assert costs[0] == pytest.approx(costs[1], rel=0.02)


def test_matrices_of_one_input_share_the_factor_of_each_structure() -> None:
    method, stats, w = registry.get("descent"), inputs(8, COLUMNS), weights(8, 4, COLUMNS)
    shared = method.prepare(stats, method.options())
    for format in (named("q4_k"), named("q6_k"), named("int4"), named("q4_k")):
        assert shared.of(format) is shared.of(format)
        q = method.solve(w, format, Seen(stats, shared), method.options())
        alone = descent.quantize(w, format, stats)
        assert (q.codes == alone.codes).all() and (q.scale == alone.scale).all()


def test_natural_order_and_given_arrays_stay_as_they_were() -> None:
    w, stats, format = weights(9, 4, COLUMNS), inputs(9, COLUMNS), named("q4_k")
    copies = w.copy(), np.array(stats.moment)
    q = descent.quantize(w, format, stats, order="natural")
    require_stored(q)
    assert (w == copies[0]).all() and (stats.moment == copies[1]).all()
    assert not (q.codes == descent.quantize(w, format, stats).codes).all()
