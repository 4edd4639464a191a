"""Learned rounding: its loss and slopes are the definition's, and it beats what it must beat, row by row."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.qtensor import QTensor
from bitwright.core.stats import Stats
from bitwright.errors import RecipeError, TensorError
from bitwright.methods import descent, mse
from bitwright.methods.adaround import rounding as adaround
from tests.methods.test_rtn import label

few = settings(max_examples=15, deadline=None)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Thousands of tiny products: on a busy machine, threads that wait for each other take minutes over them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def layer(seed: int, out: int = 16, k: int = 48, tokens: int = 600) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and correlated positive inputs, as after ReLU."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(k, k, generator=g) * torch.exp(-0.1 * torch.arange(k))[:, None]
    return torch.randn(out, k, generator=g), (torch.randn(tokens, k, generator=g) @ mix).relu()


def int_(bits: int, block: str | int = "channel", symmetric: bool = True) -> Format:
    return named(f"int{bits}", group=block, symmetric=symmetric, scale="fp32")  # type: ignore[arg-type]


def losses(q: QTensor, x: torch.Tensor, target: torch.Tensor, *, bias: float = 0.0, relu: bool = False) -> torch.Tensor:
    """Mean squared output error of each row, in double precision."""
    y, t = x.double() @ q.decode().double().T + bias, target.double()
    return ((y.relu() - t.relu() if relu else y - t) ** 2).mean(dim=0)


@few
@given(st.integers(0, 2**32), st.booleans())
def test_loss_and_slope_are_the_definitions(seed: int, relu: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    w, x, d = torch.randn(2, 3, 5, generator=g), torch.randn(2, 40, 5, generator=g), torch.randn(2, 3, 5, generator=g)
    target, bias = torch.randn(2, 40, 3, generator=g), torch.randn(2, 1, 3, generator=g)
    problem = adaround.Layer.of(w, x, target, bias)
    d.requires_grad_()
    found = x @ (w + d).mT + bias
    error = found.relu() - target.relu() if relu else found - target
    wanted = (error**2).mean(dim=1)
    torch.testing.assert_close(problem.loss(d.detach(), relu), wanted.detach(), rtol=1e-3, atol=1e-4)
    wanted.sum().backward()
    pull = problem.pull_relu(d.detach(), torch.arange(40)) if relu else problem.pull(d.detach())
    torch.testing.assert_close(-2 * pull, d.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    "format", [int_(3), int_(4, "tensor"), int_(4, 16), int_(4, "channel", False), int_(8)], ids=label
)
def test_no_row_ends_worse_than_by_rounding_to_nearest(format: Format, relu: bool) -> None:
    total = []
    for seed in range(3):
        w, x = layer(seed)
        q, plain = adaround.quantize(w, format, x, relu=relu, steps=200), mse.quantize(w, format)
        assert torch.equal(q.scale, plain.scale), "scales never move"
        learned, nearest = (losses(v, x, x @ w.T, relu=relu) for v in (q, plain))
        assert bool((learned <= nearest * (1 + 1e-3) + 1e-9).all())
        total.append(float(learned.sum() / nearest.sum()))
    assert max(total) < 0.7


def test_at_least_as_good_as_descent_and_better_with_learning() -> None:
    """The same objective without learning is the method descent: learning finds better optima."""
    found, without = [], []
    for seed in range(4):
        w, x = layer(seed)
        q = adaround.quantize(w, int_(3), x)
        found.append(float(losses(q, x, x @ w.T).sum()))
        without.append(float(losses(descent.quantize(w, int_(3), Stats.of(x)), x, x @ w.T).sum()))
    assert sum(found) < 0.97 * sum(without)


def test_near_the_best_of_all_codes() -> None:
    """Six weights of two bits: all 4096 choices tried."""
    for seed in range(5):
        w, x = layer(seed, 1, 6)
        q = adaround.quantize(w, int_(2), x)
        codes = torch.tensor(list(itertools.product(range(-2, 2), repeat=6))).float() * q.scale
        best = float((((codes - w) @ x.T) ** 2).mean(dim=1).min())
        assert float(losses(q, x, x @ w.T)) <= 1.3 * best + 1e-9


def test_the_relu_counts_only_what_passes() -> None:
    gains = []
    for seed in range(3):
        w, x = layer(seed)
        bias = torch.full((16,), -2.0)
        target = x @ w.T + bias
        plain = adaround.quantize(w, int_(3), x, target, bias=bias)
        relu = adaround.quantize(w, int_(3), x, target, bias=bias, relu=True)
        gains.append(
            float(
                losses(relu, x, target, bias=-2.0, relu=True).sum()
                / losses(plain, x, target, bias=-2.0, relu=True).sum()
            )
        )
    assert max(gains) < 1.0


def test_targets_of_the_float_layer_make_up_for_errors_before_it() -> None:
    """Inputs that came through a coarse quantizer: fitting the float outputs beats fitting W x^."""
    w, x = layer(5)
    seen = (x / 1.5).round() * 1.5 + 0.3
    wanted = x @ w.T
    blind, aware = adaround.quantize(w, int_(4), seen), adaround.quantize(w, int_(4), seen, wanted)
    assert losses(aware, seen, wanted).sum() < 0.9 * losses(blind, seen, wanted).sum()


@pytest.mark.parametrize("groups", [2, 16])
@pytest.mark.parametrize("block", ["channel", "tensor"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_grouped_convolutions_are_their_groups(groups: int, block: str, symmetric: bool) -> None:
    format = int_(4, block, symmetric)
    g = torch.Generator().manual_seed(2)
    w, x = torch.randn(32, 9, generator=g), torch.rand(300, groups * 9, generator=g) + 0.2
    q = adaround.quantize(w, format, x, groups=groups, steps=150)
    scales = mse.search(w, format)
    parts = []
    for i in range(groups):
        own = slice(i * 32 // groups, (i + 1) * 32 // groups)
        scale, zero = (s if s is None or block == "tensor" else s[own] for s in scales[:2])
        part = adaround.quantize(w[own], format, x[:, i * 9 : i * 9 + 9], steps=150, scales=(scale, zero, 1.0))
        parts.append(part.decode())
    # Sums in another order may turn a tie.
    assert float((q.decode() == torch.cat(parts)).double().mean()) > 0.97


def test_the_same_seed_gives_the_same_codes_and_inputs_are_left_alone() -> None:
    w, x = layer(7)
    copies = w.clone(), x.clone()
    a, b = (adaround.quantize(w, int_(4), x, relu=True, steps=60, batch=64, seed=3) for _ in range(2))
    assert torch.equal(a.codes, b.codes)
    assert torch.equal(w, copies[0]) and torch.equal(x, copies[1])


def test_dead_inputs_and_zero_rows() -> None:
    w, x = layer(1)
    w[3] = 0
    x[:, 5] = 0
    for data in (x, x * 0, x[:1]):
        q = adaround.quantize(w, int_(4), data, steps=20)
        assert bool(torch.isfinite(q.decode()).all()) and not bool(q.decode()[3].any())


def test_bad_input() -> None:
    w, x = layer(0)
    with pytest.raises(RecipeError, match="nf4"):
        adaround.quantize(w, named("nf4"), x)
    for bad, target in ((x[:, 1:], None), (x, x), (x[:0], None), (x + float("nan"), None)):
        with pytest.raises(TensorError):
            adaround.quantize(w, int_(4), bad, target)
    with pytest.raises(TensorError):
        adaround.quantize(w, int_(4), x, groups=3)
