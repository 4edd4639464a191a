"""Accuracy, agreement, KL and SQNR of two networks over the same batches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.models.tasks.detection import Annotations
from bitwright.models.tasks.verdict import Verdict, compare, probabilities
from tests.models.samples.sources import fails


def outputs(seed: int, rows: int = 60, classes: int = 8, noise: float = 0.5) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(rows, classes)).astype(np.float32) * 2
    b = a + rng.normal(size=a.shape).astype(np.float32) * noise
    return a, b, rng.integers(0, classes, rows)


def classify(a: Any, b: Any, labels: Any = None, **keys: Any) -> Verdict:
    return compare("classify", {"y": a}, {"y": b}, labels, **keys)


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_against_the_definitions() -> None:
    a, b, labels = outputs(0)
    found = classify(a, b, labels.tolist()).summary()
    p, q = softmax(a.astype(np.float64)), softmax(b.astype(np.float64))
    rows = (p * np.log(p / q)).sum(axis=1)
    assert found["kl"] == pytest.approx(rows.mean(), rel=1e-4)
    assert found["kl_interval"] == pytest.approx(1.96 * rows.std(ddof=1) / math.sqrt(60), rel=1e-3)
    assert found["top1_agreement"] == (a.argmax(1) == b.argmax(1)).mean()
    assert found["top1_float"] == (a.argmax(1) == labels).mean()
    assert found["top1_quantized"] == (b.argmax(1) == labels).mean()
    best = np.argsort(-b, axis=1)[:, :5]
    assert found["top5_quantized"] == (best == labels[:, None]).any(1).mean()
    assert found["top1_change"] == pytest.approx(found["top1_quantized"] - found["top1_float"])
    assert found["top1_gained"] - found["top1_lost"] == round(60 * found["top1_change"])
    assert found["sqnr_db"]["y"] == pytest.approx(10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()), rel=1e-4)
    assert (found["samples"], found["labelled"]) == (60, 60)


def test_scikit_learn_counts_the_same() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    a, b, labels = outputs(3)
    found = classify(a, b, labels).summary()
    assert found["top1_float"] == metrics.accuracy_score(labels, a.argmax(1))
    assert found["top5_quantized"] == pytest.approx(metrics.top_k_accuracy_score(labels, b, k=5, labels=range(8)))


@given(st.integers(0, 1000), st.integers(1, 59))
def test_batches_add_up(seed: int, cut: int) -> None:
    a, b, labels = outputs(seed)
    whole = classify(a, b, labels)
    parts = classify(a[:cut], b[:cut], labels[:cut]) + classify(a[cut:], b[cut:], labels[cut:])
    one, two = whole.summary(), parts.summary()
    assert one.pop("sqnr_db") == pytest.approx(two.pop("sqnr_db"), rel=1e-5)
    assert one.pop("task") == two.pop("task")
    assert one == pytest.approx(two, rel=1e-6)


def test_probabilities_and_logits_give_one_kl() -> None:
    a, b, _ = outputs(1)
    logits = classify(a, b).summary()
    for form in (softmax, lambda x: np.log(softmax(x))):
        found = classify(form(a), form(b)).summary()
        assert found["kl"] == pytest.approx(logits["kl"], rel=1e-4)
        assert found["top1_agreement"] == logits["top1_agreement"]
    assert probabilities(softmax(a)) and not probabilities(a) and not probabilities(np.log(softmax(a)))
    zero = softmax(b)
    zero[:, 0] = 0
    assert math.isfinite(classify(softmax(a), zero).summary()["kl"])


def test_equal_networks() -> None:
    a, _, labels = outputs(2)
    found = classify(a, a, labels)
    table = found.summary()
    assert (table["kl"], table["top1_agreement"], table["top1_change"]) == (0, 1, 0)
    assert table["sqnr_db"] == {"y": None}
    assert table["top1_agreement_low"] < 1 and table["top1_change_interval"] > 0, "60 samples prove nothing"
    assert any("top-1 accuracy" in line for line in found.lines())


def test_equal_scores_are_ranked_alike() -> None:
    a = np.zeros((3, 8), np.float32)
    table = classify(a, a, [0, 4, 5]).summary()
    assert (table["top1_float"], table["top5_float"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_few_classes_and_further_axes() -> None:
    a, b, labels = outputs(0, classes=4)
    found = classify(a[:, :, None, None], b[:, :, None, None], labels)
    assert found.top5 is None and found.summary() == classify(a, b, labels).summary()
    bare = classify(a, b)
    assert bare.top1 is None and bare.scores is not None and "top1_float" not in bare.summary()


def test_words_and_boxes() -> None:
    a, b, labels = outputs(0, classes=3)
    texts = [("no", "yes", "maybe")[label] for label in labels]
    found = compare("words", {"y": a}, {"y": b}, texts, classes=("no", "yes", "maybe")).summary()
    assert found["wer_float"] == pytest.approx(1 - (a.argmax(1) == labels).mean())
    frames = np.eye(3, dtype=np.float32)[np.array([[1, 0, 2], [2, 2, 0]])]
    ctc = compare("words", {"y": frames}, {"y": frames}, ["ab", "b"], classes=("-", "a", "b")).summary()
    assert (ctc["wer_float"], ctc["rows"], ctc["same"]) == (0, 6, 2)
    assert compare("words", {"y": frames}, {"y": frames}, None).words is None
    box = {"boxes": np.float32([[[0, 0, 9, 9]]]), "scores": np.float32([[1]]), "labels": np.int64([[1]])}
    seen = compare("detect", box, box, [Annotations.of([[0, 0, 9, 9]], [1])]).summary()
    assert (seen["map_float"], seen["map_change"]) == (1, 0)
    bare = compare("detect", box, box, None, count=1).summary()
    assert bare["boxes_agreement"] == 1 and "map_float" not in bare


def test_any_other_network() -> None:
    a, b, _ = outputs(0)
    found = compare("none", {"y": a, "z": a[:1]}, {"y": b, "z": a[:1]}, None)
    assert (found + found).samples == 120
    assert set(found.summary()) == {"task", "samples", "silent", "sqnr_db"} and found.summary()["sqnr_db"]["z"] is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a, b, labels: classify(a, b * np.float32(np.nan), labels), ("output 'y'", "quantized", "NaN")),
        (lambda a, b, labels: classify(a * np.float32(np.inf), b, labels), ("output 'y'", "float", "infinity")),
        (lambda a, b, labels: classify(a, b[:, :4], labels), ("[60, 8]", "[60, 4]")),
        (lambda a, b, labels: classify(a[:, :2], b[:, :2], labels), ("outside the 2 classes",)),
        (lambda a, b, labels: classify(a, b, labels, classes=("x", "y")), ("2 classes in the data", "8 in output 'y'")),
        (lambda a, b, labels: classify(a, b, labels[:9]), ("[60, 8]", "9 samples")),
        (lambda a, b, labels: classify(a, b, labels, output="z"), ("'z'", "Known: y")),
        (lambda a, b, labels: compare("none", {"y": a}, {"z": b}, None), ("outputs y and z",)),
    ],
)
def test_bad_input(change: Any, words: tuple[str, ...]) -> None:
    with np.errstate(invalid="ignore"):
        fails(lambda: change(*outputs(0)), *words)
