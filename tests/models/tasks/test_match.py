"""Embeddings: cosines, and verification by the protocol of Labeled Faces in the Wild."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitwright.models.samples.pairs import draw_pairs
from bitwright.models.tasks.match import (
    Embeddings,
    Verification,
    embedding_of,
    equal_error_rate,
    threshold,
    true_acceptance,
)
from bitwright.models.tasks.verdict import compare
from tests.models.samples.sources import fails

PEOPLE = np.repeat(np.arange(20), 6)
NAMES = [f"{person:02}/{i}.png" for i, person in enumerate(PEOPLE.tolist())]
PAIRS = draw_pairs(NAMES, PEOPLE.tolist(), 0, "faces")


def faces(noise: float, seed: int = 0) -> Any:
    """Embeddings of 20 people, six each: a direction of their own and noise, of any length."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(20, 32))[PEOPLE] + noise * rng.normal(size=(120, 32))
    return (found * rng.uniform(1, 9, (120, 1))).astype(np.float32)


def test_cosines() -> None:
    a = np.float32([[1, 0], [0, 2], [3, 3], [0, 0]])
    b = np.float32([[2, 0], [2, 0], [-1, -1], [1, 0]])
    parts = Embeddings.of(a[:1], b[:1]) + Embeddings.of(a[1:], b[1:])
    np.testing.assert_allclose(parts.cosines, [1, 0, -1, 0], atol=1e-12)
    found = parts.summary()
    assert (found["cosine"], found["cosine_worst"], found["embeddings"], found["width"]) == (0, -1, 4, 2)
    assert Embeddings.of(7 * a[:3], a[:3]).summary()["cosine"] == 1, "length does not count"


def test_clear_faces_are_told_apart_and_noise_is_not() -> None:
    good, bad = faces(0.2), faces(0.2) + 40 * np.random.default_rng(1).normal(size=(120, 32)).astype(np.float32)
    found = Verification.between(Embeddings.of(good, bad), PAIRS).summary()
    assert found["match_float"] == 1 and 0.35 < found["match_quantized"] < 0.7
    assert found["match_change"] == pytest.approx(found["match_quantized"] - 1)
    assert found["match_lost"] == round(-found["match_change"] * found["pairs"]) and found["match_gained"] == 0
    assert found["eer_float"] == 0 and found["tar_float"] == 1
    assert found["eer_quantized"] > 0.3 and found["tar_quantized"] < 0.3
    same = Verification.between(Embeddings.of(good, good), PAIRS)
    assert same.summary()["match_change"] == 0 and same.kept == same.after
    assert 0 < same.summary()["match_change_interval"] < 0.01
    assert len(same.lines()) == 5


def test_thresholds_are_chosen_on_other_pairs() -> None:
    """Random embeddings: a threshold chosen on the judged pairs would beat guessing, this one must not."""
    shares = []
    for seed in range(20):
        x = np.random.default_rng(seed).normal(size=(120, 2))
        shares.append(Verification.between(Embeddings.of(x, x), PAIRS).before.value)
    assert 0.45 < np.mean(shares) < 0.525


def test_the_float_threshold_is_kept_apart() -> None:
    """Cosines that all move: with a threshold of its own the other network is as good, with the old one it is not."""
    good = faces(0.2)
    moved = good / np.linalg.norm(good, axis=1, keepdims=True) + np.float32(2)
    found = Verification.between(Embeddings.of(good, moved), PAIRS).summary()
    assert found["match_quantized"] > 0.95 and found["match_kept_threshold"] == pytest.approx(0.5, abs=0.02)


def brute(scores: Any, same: Any) -> float:
    """The most pairs that any threshold gets right."""
    limits = [*scores, scores.max() + 1]
    return max(((scores >= limit) == same).mean() for limit in limits)


@pytest.mark.parametrize("seed", range(6))
def test_no_threshold_is_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    same = rng.random(40) < 0.5
    scores = np.round(rng.normal(size=40) + same, 1)  # with equal ones
    assert ((scores >= threshold(scores, same)) == same).mean() == brute(scores, same)


def test_rates_by_hand() -> None:
    same = np.array([True] * 4 + [False] * 4)
    scores = np.array([0.9, 0.8, 0.7, 0.2, 0.6, 0.3, 0.1, 0.0])
    assert equal_error_rate(scores, same) == 0.25
    assert (true_acceptance(scores, same, 0.0), true_acceptance(scores, same, 0.5)) == (0.75, 1)
    assert true_acceptance(np.where(same, scores, -1), same, 0.0) == 1
    assert equal_error_rate(np.zeros(8), same) == 0.5, "equal scores accept all or none"


def test_the_embedding_is_found() -> None:
    x = np.zeros((3, 8), np.float32)
    wide = {"y": x[:, :, None, None], "tokens": np.zeros((3, 5, 8), np.float32), "ids": np.zeros((3, 8), np.int64)}
    assert embedding_of(wide, None, 3) == "y"
    assert embedding_of({"y": x, "z": x}, "z", 3) == "z"
    fails(lambda: embedding_of({"y": x, "z": x}, None, 3), "y [3, 8], z [3, 8]", "data.match.output")
    fails(lambda: embedding_of({"y": x}, "embed", 3), "'embed'", "Known: y")
    fails(lambda: embedding_of({"tokens": np.zeros((3, 5, 8), np.float32)}, None, 3), "tokens [3, 5, 8]", "one row")
    fails(lambda: embedding_of({"score": x[:, :1]}, None, 3), "score [3, 1]")


def test_batches_add_up() -> None:
    a, b = faces(0.5), faces(0.5) + np.float32(0.5)
    whole = compare("match", {"y": a}, {"y": b}, PEOPLE.tolist())
    cuts = [slice(i, i + 50) for i in (0, 50, 100)]
    parts = [compare("match", {"y": a[cut]}, {"y": b[cut]}, PEOPLE[cut].tolist()) for cut in cuts]
    total = parts[0] + parts[1] + parts[2]
    found, wanted = (one.verified(PAIRS).summary() for one in (total, whole))
    assert found.pop("sqnr_db")["y"] == pytest.approx(wanted.pop("sqnr_db")["y"])
    assert found == pytest.approx(wanted | {"task": "match"})
    assert "verification" in "\n".join(whole.verified(PAIRS).lines()) and total.samples == 120
