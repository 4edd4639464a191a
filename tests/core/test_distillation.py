"""Losses of distillation against direct formulas and their slopes; that drawn words stand for all without bias."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core import distillation as d

few = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32)
temperatures = st.sampled_from([0.5, 1.0, 2.0, 4.0])


def logits(seed: int, rows: int = 3, words: int = 17) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 2, (rows, words)).astype(np.float32), rng.normal(0, 2, (rows, words)).astype(np.float32)


def softmax(z: np.ndarray, temperature: float) -> np.ndarray:
    e = np.exp(z.astype(np.float64) / temperature - (z.astype(np.float64) / temperature).max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def wanted(name: str, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The divergences in float64, word by word."""

    def kl(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.array([sum(x * np.log(x / y) for x, y in zip(*pair, strict=True)) for pair in zip(a, b, strict=True)])

    if name == "forward":
        return kl(p, q)
    if name == "reverse":
        return kl(q, p)
    m = 0.3 * p + 0.7 * q
    return 0.3 * kl(p, m) + 0.7 * kl(q, m)


LOSSES: dict[str, Callable[..., Any]] = {
    "forward": d.forward,
    "reverse": d.reverse,
    "jensen-shannon": lambda t, s, temperature: d.jensen_shannon(t, s, temperature, 0.3),
}


@pytest.mark.parametrize("name", LOSSES)
@few
@given(seed=seeds, temperature=temperatures)
def test_values_and_slopes(name: str, seed: int, temperature: float) -> None:
    teacher, student = logits(seed)
    p = softmax(teacher, temperature)

    def value(z: np.ndarray) -> np.ndarray:
        return temperature**2 * wanted(name, p, softmax(z, temperature))

    given_torch = torch.from_numpy(student).requires_grad_()
    found = LOSSES[name](torch.from_numpy(teacher), given_torch, temperature)
    assert np.allclose(found.detach(), value(student), rtol=1e-3, atol=1e-5)
    assert np.allclose(LOSSES[name](teacher, student, temperature), value(student), rtol=1e-3, atol=1e-5)
    found.sum().backward()
    step, z = 1e-4, student.astype(np.float64)
    for word in range(0, z.shape[1], 5):
        moved = np.zeros_like(z)
        moved[:, word] = step
        slope = (value(z + moved) - value(z - moved)) / (2 * step)
        assert given_torch.grad is not None
        assert np.allclose(given_torch.grad[:, word], slope, rtol=5e-3, atol=1e-4)


def test_a_word_that_the_teacher_never_says_costs_nothing() -> None:
    teacher = torch.tensor([[0.0, 1.0, -torch.inf]])
    student = torch.zeros(1, 3, requires_grad=True)
    found = d.forward(teacher, student)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert student.grad is not None and torch.isfinite(student.grad).all()
    assert torch.isfinite(d.entropy(teacher)).all()


@few
@given(seeds)
def test_jensen_shannon_tends_to_forward(seed: int) -> None:
    teacher, student = (x.astype(np.float64) for x in logits(seed))
    full = d.forward(teacher, student)
    gaps = [abs(d.jensen_shannon(teacher, student, 1.0, share) / share - full) for share in (0.5, 0.05)]
    assert (gaps[1] < gaps[0]).all() and (gaps[1] < full).all()


@few
@given(seed=seeds, count=st.integers(1, 16), words=st.integers(2, 60), sharp=st.sampled_from([0.3, 1.0, 4.0, 30.0]))
def test_drawn_words_stand_for_all(seed: int, count: int, words: int, sharp: float) -> None:
    """Over all of [0, 1), evenly: the sum of weights is p, and so is that of the whole units."""
    rng = np.random.default_rng(seed)
    p = softmax(rng.normal(0, sharp, (1, words)).astype(np.float32), 1.0).astype(np.float32)
    n = 4000
    uniform = (np.arange(n) + 0.5) / n
    found, weights = d.draw(np.repeat(p, n, 0), count, uniform)
    units = d.in_units(weights, rng.permutation(uniform))
    assert found.shape == weights.shape == units.shape == (n, count)
    assert found.min() >= 0 and found.max() < words
    mean, stored = np.zeros(words), np.zeros(words)
    np.add.at(mean, found.ravel(), weights.ravel() / n)
    np.add.at(stored, found.ravel(), units.ravel() / d.UNITS / n)
    edge = count * 2 / n  # an interval of `uniform` begins and ends between two of its values
    assert np.allclose(mean, p[0], atol=edge * max(1.0, weights.max()))
    assert np.allclose(stored, mean, atol=2e-5)
    if words >= count:
        assert np.allclose(weights.sum(1), 1, atol=1e-4)


def test_words_are_drawn_once() -> None:
    teacher, _ = logits(1, rows=500, words=200)
    found, _ = d.draw(softmax(teacher, 1.0).astype(np.float32), 12, np.random.default_rng(0).random(500))
    assert all(len(np.unique(row)) == 12 for row in found)


@few
@given(seeds)
def test_numpy_and_torch_draw_alike(seed: int) -> None:
    teacher, _ = logits(seed, rows=5, words=40)
    p, uniform = softmax(teacher, 1.0).astype(np.float32), np.random.default_rng(seed).random(5)
    found, weights = d.draw(p, 6, uniform)
    other, beside = d.draw(torch.from_numpy(p), 6, torch.from_numpy(uniform))
    assert np.array_equal(found, other) and np.allclose(weights, beside, rtol=1e-5)


def test_the_mean_slope_is_the_full_one() -> None:
    """Many draws: gradient and loss of stored shares, averaged, against those of the whole distribution."""
    teacher, student = logits(7, rows=4, words=64)
    n, rng = 20_000, np.random.default_rng(3)
    p = torch.from_numpy(softmax(teacher, 1.0)).float()
    z = torch.from_numpy(student).requires_grad_()
    total, slopes, squares = torch.zeros(4), torch.zeros(4, 64), torch.zeros(4, 64)
    for row in range(4):
        found, weights = d.draw(p[row].repeat(n, 1), 12, torch.from_numpy(rng.random(n)))
        shares = (d.in_units(weights, torch.from_numpy(rng.random(n))) / d.UNITS).float()
        every = z[row].detach().repeat(n, 1).requires_grad_()
        loss = d.cross_entropy(found, shares, every)
        loss.sum().backward()
        assert every.grad is not None
        total[row], slopes[row] = loss.mean().detach(), every.grad.mean(0)
        squares[row] = every.grad.std(0) / n**0.5
    full = d.forward(torch.from_numpy(teacher), z)
    full.sum().backward()
    assert z.grad is not None
    assert torch.allclose(total - d.entropy(torch.from_numpy(teacher)), full.detach(), atol=5e-3)
    assert ((slopes - z.grad).abs() <= 5 * squares + 1e-6).all()
    assert squares.max() > 1e-5, "the draws vary, so the test can fail"
