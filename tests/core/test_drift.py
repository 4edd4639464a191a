"""Corrected targets win back what drifted inputs lost, as far as tokens show it, and nothing that they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bitwright.core.drift import Choice, Drift, aim, describe, make_up
from bitwright.core.stats import Stats


def streams(n: int, seed: int, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Float inputs and what is left of them: scaled, mixed, and blurred by noise of its own."""
    g = np.random.default_rng(seed)
    x = g.normal(size=(n, 6)) @ (np.eye(6) + 0.4 * np.random.default_rng(0).normal(size=(6, 6)))
    lost = x @ (0.9 * np.eye(6) + 0.05 * np.random.default_rng(1).normal(size=(6, 6))) + noise * g.normal(size=x.shape)
    return x.astype(np.float32), lost.astype(np.float32)


def drift(x: np.ndarray, lost: np.ndarray, gap: np.ndarray | None = None) -> Drift:
    return Drift(Stats.of(lost), (x - lost).T @ lost, None if gap is None else gap.T @ lost)


W = np.random.default_rng(2).normal(size=(4, 6)).astype(np.float32)


def error(w: np.ndarray, x: np.ndarray, lost: np.ndarray, gap: float | np.ndarray = 0.0) -> float:
    return float(((x @ W.T + gap - lost @ w.T) ** 2).mean())


def test_a_linear_loss_is_made_up_for_on_tokens_never_seen() -> None:
    target, (choice,) = aim(W, (drift(*streams(400, 3)), drift(*streams(400, 4))))
    x, lost = streams(1000, 5)
    assert error(target, x, lost) < 0.01 * error(W, x, lost)
    assert choice.ridge == 0.01
    assert choice.share > 0.95


def test_what_the_stream_lost_is_made_up_for_as_well() -> None:
    def gap(lost: np.ndarray) -> np.ndarray:
        return lost @ (0.2 * np.random.default_rng(6).normal(size=(6, 4))).astype(np.float32)

    halves = tuple(drift(x, lost, gap(lost)) for x, lost in (streams(400, 7), streams(400, 8)))
    target, choices = aim(W, (halves[0], halves[1]))
    x, lost = streams(1000, 9)
    assert len(choices) == 2
    assert error(target, x, lost, gap(lost)) < 0.01 * error(W, x, lost, gap(lost))


def test_few_tokens_of_noise_are_not_learnt_by_heart() -> None:
    g = np.random.default_rng(10)
    halves = []
    for _ in range(2):
        lost = g.normal(size=(12, 6)).astype(np.float32)
        halves.append(drift(lost + g.normal(size=(12, 6)).astype(np.float32), lost))
    target, (choice,) = aim(W, (halves[0], halves[1]))
    whole = halves[0] + halves[1]
    by_heart = W + W @ whole.cross @ np.linalg.inv(whole.stats.moment)
    assert np.abs(target - W).sum() < 0.3 * np.abs(by_heart - W).sum()
    assert choice.share < 0.5


def test_inputs_that_lost_nothing_leave_the_weights_as_they_are() -> None:
    x, _ = streams(100, 11)
    target, (choice,) = aim(W, (drift(x, x), drift(x, x)))
    np.testing.assert_array_equal(target, W)
    assert choice.gain == choice.share == 0


def test_inputs_of_zeros_leave_the_weights_as_they_are() -> None:
    x, _ = streams(100, 11)
    target, _ = aim(W, (drift(x, 0 * x), drift(x, 0 * x)))
    np.testing.assert_array_equal(target, W)


@pytest.mark.parametrize("gap", [False, True])
def test_both_libraries_agree(gap: bool) -> None:
    def record(seed: int) -> Drift:
        x, lost = streams(60, seed, 0.3)
        return drift(x, lost, lost[:, :4] - x[:, :4] if gap else None)

    def in_torch(d: Drift) -> Drift:
        moment, cross = torch.from_numpy(d.stats.moment), torch.from_numpy(d.cross)
        return Drift(Stats(d.stats.n, moment), cross, None if d.residual is None else torch.from_numpy(d.residual))

    halves = record(12), record(13)
    numpy, choices = aim(W, halves)
    other, same = aim(torch.from_numpy(W), (in_torch(halves[0]), in_torch(halves[1])))
    np.testing.assert_allclose(other.numpy(), numpy, rtol=1e-4, atol=1e-4)
    assert [c.ridge for c in choices] == [c.ridge for c in same]


def test_matrices_with_inputs_of_their_own_are_fitted_alike() -> None:
    records = [[drift(*streams(60, seed, 0.3)) for seed in pair] for pair in ((14, 15), (16, 17))]
    stacked = [
        Drift(Stats(60, np.stack([d.stats.moment for d in half])), np.stack([d.cross for d in half]))
        for half in zip(*records, strict=True)
    ]
    target, (choice,) = aim(np.stack([W, W]), (stacked[0], stacked[1]))
    assert target.shape == (2, *W.shape)
    for found, (one, other) in zip(target, records, strict=True):
        whole, ridge = one + other, choice.ridge * (one + other).stats.hessian.trace() / 6
        exact = W @ whole.cross / whole.stats.n @ np.linalg.inv(whole.stats.hessian + ridge * np.eye(6))
        np.testing.assert_allclose(found, W + choice.share * exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_moments_that_rounding_left_indefinite_say_nothing(convert: Any) -> None:
    """Inputs that hardly vary, about their mean: one group of two has them, the other is fitted as alone."""
    halves = [drift(*streams(400, seed)) for seed in (3, 4)]
    alone, _ = aim(W, (halves[0], halves[1]))
    bad = np.diag(np.array([1, -3, 1, 1, 1, 1], np.float32)) * 1e-3
    moments = [np.stack([half.stats.moment, bad]) for half in halves]
    lost = [np.stack([W @ half.cross, np.zeros((4, 6), np.float32)]) for half in halves]
    stats = [Stats(400, convert(moment)) for moment in moments]
    found, _ = make_up(convert(np.stack([W, W])), stats, [[convert(each) for each in lost]])
    assert np.abs(np.asarray(found[0]) - alone).max() < 0.02 * np.abs(alone).max()
    assert np.abs(np.asarray(found[1]) - W).max() < 1e-6


def test_a_note_says_what_was_chosen() -> None:
    inputs, residual = Choice(0.1, 0.85, 0.02), Choice(3.0, 0.4, 0.01)
    assert describe([inputs]) == "inputs 85 % at ridge 0.1"
    assert describe([inputs, residual]) == "inputs 85 % at ridge 0.1, residual 40 % at ridge 3"
    nothing = Choice(0.01, 0.0, 0.0)
    assert describe([nothing, residual]) == "residual 40 % at ridge 3"
    assert describe([nothing]) == "nothing holds on the other half of the tokens"
