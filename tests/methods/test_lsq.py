"""Learned step sizes against the paper's formulas, case by case, and in a small training."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

from bitwright.errors import RecipeError
from bitwright.methods.lsq import training as lsq

few = settings(max_examples=60, deadline=None)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Thousands of tiny products: on a busy machine, threads that wait for each other take minutes over them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("v", "value", "in_v", "in_step"),
    [
        (0.30, 0.5, 1.0, 1 - 0.6),  # inside: round(v / s) - v / s
        (-0.30, -0.5, 1.0, -1 + 0.6),
        (0.20, 0.0, 1.0, -0.4),
        (9.0, 3.5, 0.0, 7.0),  # above: high
        (-9.0, -4.0, 0.0, -8.0),  # below: low
        (3.6, 3.5, 0.0, 7.0),  # above, though it would round to the top code
    ],
)
def test_the_formulas_case_by_case(v: float, value: float, in_v: float, in_step: float) -> None:
    x, step = torch.tensor([v], requires_grad=True), torch.tensor(0.5, requires_grad=True)
    out = lsq.fake(x, step, -8, 7)
    assert float(out.detach()) == pytest.approx(value)
    out.backward()
    assert float(x.grad) == in_v
    assert float(step.grad) == pytest.approx(in_step / math.sqrt(1 * 7), abs=1e-6)


@few
@given(st.integers(0, 2**32), st.booleans())
def test_slopes_of_a_sum_with_one_step_and_a_step_each_row(seed: int, rows: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    v = torch.randn(5, 11, generator=g, requires_grad=True)
    step = (0.05 + torch.rand(5 if rows else 1, 1, generator=g)).requires_grad_()
    up = torch.randn(5, 11, generator=g)
    (lsq.fake(v, step, -8, 7) * up).sum().backward()
    u = (v / step).detach()
    slope = torch.where(u <= -8, -8.0, torch.where(u >= 7, 7.0, u.round() - u)) * up
    wanted = slope.sum(dim=1, keepdim=True) if rows else slope.sum().reshape(1, 1)
    torch.testing.assert_close(step.grad, wanted / math.sqrt((11 if rows else 55) * 7), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(v.grad, up * ((u > -8) & (u < 7)))
    step.grad = None
    lsq.fake(v, step, -8, 7, count=1).backward(up)
    torch.testing.assert_close(step.grad, wanted / math.sqrt(7), rtol=1e-4, atol=1e-5)


def test_first_steps() -> None:
    v = torch.tensor([[1.0, -3.0], [0.0, 0.0], [4.0, -4.0]])
    assert float(lsq.step_init(v, 4)) == pytest.approx(2 * 2.0 / 2)
    torch.testing.assert_close(lsq.step_init(v, 4, axis=0), torch.tensor([2.0, lsq.SMALLEST, 4.0]))
    torch.testing.assert_close(lsq.step_init(v, 1, axis=1), torch.tensor([10 / 3, 14 / 3]))
    torch.testing.assert_close(lsq.step_init(v[..., None], 1, axis=1), torch.tensor([10 / 3, 14 / 3]))


def test_a_module_rounds_as_its_affine_does() -> None:
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)).relu()
    unit = lsq.Learned(4, signed=False, batched=True)
    out = unit(x)
    np.testing.assert_array_equal(unit.affine().fake(x.numpy()), out.detach().numpy())
    assert unit.affine().low == 0 and len(out.unique()) <= 16
    assert float(unit.step.detach()) == pytest.approx(float(2 * x.mean() / math.sqrt(15)))
    out.sum().backward()
    assert unit.step.grad is not None
    with torch.no_grad():
        unit.step.neg_()
    torch.testing.assert_close(unit(x), out), "the sign of a step means nothing"
    signed = lsq.Learned(3)
    signed(-x)
    assert signed.affine().signed and (signed.low, signed.high) == (-4, 3)


def test_what_makes_no_quantizer() -> None:
    for bits in (1, 9):
        with pytest.raises(RecipeError):
            lsq.Learned(bits)
    rows = lsq.Learned(4, axis=0)
    for _ in range(2):
        with pytest.raises(RecipeError):
            rows.affine()
        rows(torch.ones(3, 2))
    with pytest.raises(RecipeError):
        lsq.Penalty(0.0)


def test_the_penalty_draws_weights_to_their_codes() -> None:
    w = torch.tensor([[0.3, -0.9], [2.2, 0.0]], requires_grad=True)
    other = torch.tensor([1.4], requires_grad=True)
    pairs = [(w, lsq.fake(w, torch.tensor(1.0), -8, 7)), (other, lsq.fake(other, torch.tensor(1.0), -8, 7))]
    value = lsq.penalty(pairs)
    assert float(value.detach()) == pytest.approx((0.3**2 + 0.1**2 + 0.2**2 + 0.4**2) / 5)
    value.backward()
    torch.testing.assert_close(w.grad, 2 / 5 * torch.tensor([[0.3, 0.1], [0.2, 0.0]]))
    torch.testing.assert_close(other.grad, 2 / 5 * torch.tensor([0.4]))


def test_the_coefficient_comes_to_rest_at_alpha_over_the_error() -> None:
    w = torch.full((10,), 0.25)
    pairs = [(w, torch.zeros(10))]
    term = lsq.Penalty(1.0, alpha=0.01)
    assert float(term(pairs).detach()) == pytest.approx(0.0625)
    optimizer = torch.optim.Adam(term.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        term(pairs).backward()
        optimizer.step()
    assert float(term.omega.exp().detach()) == pytest.approx(0.01 / 0.0625, rel=0.01)
    rest = lsq.Penalty(3.0)
    rest(pairs).backward()
    assert float(rest.omega.grad) == pytest.approx(0, abs=1e-7), "by default it begins at rest"
    rest.zero_grad()
    rest([(w / 2, torch.zeros(10))]).backward()
    assert float(rest.omega.grad) < 0, "and grows as the error falls"


def quantized(bits: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))


def rings(n: int = 512) -> tuple[torch.Tensor, torch.Tensor]:
    """Two rings around the origin: no line divides them."""
    g = torch.Generator().manual_seed(3)
    y = torch.randint(2, (n,), generator=g)
    angle, radius = torch.rand(n, generator=g) * 2 * math.pi, 0.6 + 0.7 * y + 0.12 * torch.randn(n, generator=g)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), y


@pytest.mark.parametrize("with_penalty", [False, True])
def test_training_at_two_bits_repairs_what_rounding_broke(with_penalty: bool) -> None:
    x, y = rings()
    batches = [(x[i : i + 64], y[i : i + 64]) for i in range(0, len(x), 64)]
    model = quantized(2)

    def accuracy() -> float:
        with torch.no_grad():
            return float((model(x).argmax(1) == y).double().mean())

    list(lsq.train(model, batches, nn.functional.cross_entropy, epochs=30, rate=1e-2))
    full = accuracy()
    assert full > 0.97
    for layer in (model[0], model[2], model[4]):
        parametrize.register_parametrization(layer, "weight", lsq.Learned(2, axis=0))
    model[1] = nn.Sequential(nn.ReLU(), lsq.Learned(2, signed=False, batched=True))
    before = accuracy()
    assert before < full - 0.05
    term = lsq.Penalty(1.0)

    def extra() -> torch.Tensor:
        return term([(m.parametrizations.weight.original, m.weight) for m in (model[0], model[2], model[4])])

    options = dict(extra=extra, extra_parameters=term.parameters()) if with_penalty else {}
    epochs = list(lsq.train(model, batches, nn.functional.cross_entropy, epochs=40, rate=1e-2, **options))
    assert [e.number for e in epochs] == list(range(1, 41)) and epochs[-1].loss < epochs[0].loss
    assert accuracy() > max(before, full - 0.04)
    assert all(len(row.unique()) <= 4 for row in model[2].weight.detach())
    if with_penalty:
        assert float(term.omega.detach()) > 0


def test_a_loss_that_is_not_finite_stops_training() -> None:
    model = nn.Linear(1, 1)
    bad = [(torch.tensor([[math.nan]]), torch.zeros(1, 1))]
    with pytest.raises(RecipeError, match="NaN"):
        next(iter(lsq.train(model, bad, nn.functional.mse_loss, epochs=1)))
