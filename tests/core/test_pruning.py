"""What goes is what costs least once the others make up for it; what stays is fitted, and nothing by heart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.drift import Drift
from bitwright.core.pruning import best, damped, eliminate, loudness, refit, weighed
from bitwright.core.stats import Stats
from bitwright.errors import TensorError


def problem(seed: int, d: int, rows: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, second moments of mixed inputs, and a curvature of the outputs."""
    g = np.random.default_rng(seed)
    x = g.normal(size=(8 * d, d)) @ g.normal(size=(d, d))
    t = g.normal(size=(2 * rows, rows))
    w = g.normal(size=(rows, d)).astype(np.float32)
    return w, damped((x.T @ x / len(x)).astype(np.float32), 0.01), (t.T @ t).astype(np.float32)


def cost(w: np.ndarray, moment: np.ndarray, g: np.ndarray, gone: list[int]) -> float:
    """What the output loses without some inputs, the others fitted by least squares: from the normal equations."""
    m, wide = moment.astype(np.float64), w.astype(np.float64)
    stay = [i for i in range(len(m)) if i not in gone]
    new = np.zeros_like(wide)
    new[:, stay] = wide @ m[:, stay] @ np.linalg.inv(m[np.ix_(stay, stay)])
    apart = wide - new
    return float(np.trace(g @ apart @ m @ apart.T))


def greedy(w: np.ndarray, moment: np.ndarray, g: np.ndarray, keep: int, size: int) -> list[int]:
    """One group after another goes, by the cost of all that are gone together."""
    left = list(range(w.shape[1] // size))
    while len(left) > keep:
        out = [i for i in range(w.shape[1] // size) if i not in left]

        def lost(group: int, out: list[int] = out) -> float:
            return cost(w, moment, g, [i * size + k for i in [*out, group] for k in range(size)])

        left.remove(min(left, key=lost))
    return left


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([1, 2, 3]), keep=st.integers(1, 3))
def test_elimination_is_greedy_by_the_cost_of_all_that_are_gone(seed: int, size: int, keep: int) -> None:
    w, moment, g = problem(seed, 6 * size)
    assert eliminate(w, moment, keep, size, g) == greedy(w, moment, g, keep, size)


def test_without_curvature_all_outputs_count_alike() -> None:
    w, moment, _ = problem(3, 8)
    assert eliminate(w, moment, 3) == greedy(w, moment, np.eye(5), 3, 1)


def test_numpy_and_torch_agree() -> None:
    w, moment, g = problem(4, 12)
    given = [torch.from_numpy(part) for part in (w, moment, g)]
    assert eliminate(w, moment, 2, 2, g) == eliminate(given[0], given[1], 2, 2, given[2])
    np.testing.assert_allclose(weighed(given[0], given[1], 3, given[2]), weighed(w, moment, 3, g), rtol=1e-4)


def test_a_loud_input_goes_where_others_tell_the_same() -> None:
    g = np.random.default_rng(5)
    x = g.normal(size=(400, 5))
    x[:, 4] = 10 * x[:, 0]
    w = np.ones((3, 5), np.float32)
    moment = damped((x.T @ x / len(x)).astype(np.float32), 1e-4)
    assert 4 in best(loudness(moment), 4)
    assert len({0, 4} & set(eliminate(w, moment, 4))) == 1


def test_more_inputs_than_rounds_leave_as_many_as_asked_for() -> None:
    w, moment, _ = problem(6, 700, rows=2)
    left = eliminate(w, moment, 100)
    assert len(left) == 100
    assert left == sorted(set(left))


def test_importance_by_itself_is_the_power_that_a_group_adds() -> None:
    w, moment, g = problem(7, 6)
    for group, score in enumerate(weighed(w, moment, 2, g)):
        alone = np.zeros_like(w)
        alone[:, 2 * group : 2 * group + 2] = w[:, 2 * group : 2 * group + 2]
        assert score == pytest.approx(np.trace(g @ alone @ moment @ alone.T), rel=1e-4)
    assert best(np.array([1.0, 3.0, 2.0, 3.0]), 2) == [1, 3]


def half(seed: int, n: int, lost: float = 0.0) -> tuple[np.ndarray, Drift]:
    """Inputs of eight dimensions that four numbers decide, with some noise; the record of what is left of them."""
    g, mix = np.random.default_rng(seed), np.random.default_rng(0).normal(size=(4, 8))
    x = (g.normal(size=(n, 4)) @ mix + 0.05 * g.normal(size=(n, 8))).astype(np.float32)
    left = ((1 - lost) * x).astype(np.float32)
    return x, Drift(Stats.of(left), (x - left).T @ left)


W = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)


def test_what_remains_makes_up_for_what_is_gone_on_tokens_never_seen() -> None:
    kept = [0, 2, 3, 5, 7]
    new, choices = refit(W, [half(2, 300)[1], half(3, 300)[1]], kept)
    x, _ = half(4, 500)
    before = ((x @ W.T - x[:, kept] @ W[:, kept].T) ** 2).mean()
    after = ((x @ W.T - x[:, kept] @ new.T) ** 2).mean()
    least = ((x @ W.T - x[:, kept] @ np.linalg.lstsq(x[:, kept], x @ W.T, rcond=None)[0]) ** 2).mean()
    assert new.shape == (6, 5)
    assert len(choices) == 1
    assert after < 0.02 * before
    assert after < 3 * least + 1e-3


def test_what_was_lost_before_is_made_up_for_beside_the_cut() -> None:
    kept = [0, 2, 3, 5, 7]
    new, choices = refit(W, [half(2, 300, 0.3)[1], half(3, 300, 0.3)[1]], kept)
    x, _ = half(4, 500)
    wanted, given = x @ W.T, 0.7 * x[:, kept]
    blind = refit(W, [half(2, 300)[1], half(3, 300)[1]], kept)[0]
    assert len(choices) == 2
    assert ((wanted - given @ new.T) ** 2).mean() < 0.2 * ((wanted - given @ blind.T) ** 2).mean()


def test_a_whole_matrix_without_loss_stays_as_it_is() -> None:
    new, choices = refit(W, [half(2, 100)[1], half(3, 100)[1]], range(8))
    assert not choices
    np.testing.assert_array_equal(new, W)


def test_noise_is_not_learnt_by_heart() -> None:
    g = np.random.default_rng(8)
    halves = [Drift(Stats.of(x), np.zeros((8, 8), np.float32)) for x in g.normal(size=(2, 10, 8)).astype(np.float32)]
    new, _ = refit(W, halves, [0, 1, 2, 3])
    assert ((new - W[:, :4]) ** 2).sum() < 0.25 * (W[:, 4:] ** 2).sum()


def test_moments_that_are_not_positive_definite_are_an_error() -> None:
    with pytest.raises(TensorError, match="not positive definite"):
        eliminate(W, np.zeros((8, 8), np.float32), 4)
    assert eliminate(W, damped(np.zeros((8, 8), np.float32), 0.01), 4) == greedy(W, np.eye(8), np.eye(6), 4, 1)
