"""Layers by what they cost, and what counts as a drop of each task's measure."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bitwright.engine.journal import Journal
from bitwright.engine.write import Writer
from bitwright.errors import DataError
from bitwright.models.network import verdict
from bitwright.models.network.model import NetworkModel, sink_of
from bitwright.recipe import Recipe
from tests import jobs


def test_the_layer_that_was_ruined_comes_first(tmp_path: Path) -> None:
    source, data = jobs.network("residual", tmp_path, labels=True)
    table: dict[str, Any] = {"layer": {"method": "rtn"}, "data": {"source": str(data)}, "network": {"bias": "none"}}
    table["effort"] = "fast"  # later layers would make up for it
    names = list(jobs.made(source, tmp_path / "out.onnx", **table).items)
    for bad in (names[2], names[-2]):
        rules = [{"match": bad, "format": "int2"}]
        plan = jobs.made(source, tmp_path / "out.onnx", **table, rules=rules)
        assert isinstance(plan.model, NetworkModel)
        plan.partial.mkdir(exist_ok=True)
        list(Writer(plan, Journal(plan.partial, bad)).run(plan.model.samples))
        ranked = value(plan.model.rank(plan, plan.model.samples))
        assert ranked[0] == bad and sorted(ranked) == sorted(names)
        assert sink_of(plan).weights.keys() == {item.part.weight for item in plan.items.values()}, "it only looks"
        drop = value(plan.model.drop(plan, plan.model.samples))
        assert drop.name == "accuracy" and 0 <= drop.value <= 100
        shutil.rmtree(plan.partial)


def value(steps: Any) -> Any:
    """A generator's return value."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def measured(**summary: float) -> Any:
    """A verdict with these figures."""
    return SimpleNamespace(top1=None, scores=None, summary=lambda: summary)


def test_what_falls_is_the_tasks_own_measure() -> None:
    pair = SimpleNamespace(before=SimpleNamespace(value=0.9), after=SimpleNamespace(value=0.85))
    found = verdict.drop(SimpleNamespace(top1=pair))  # type: ignore[arg-type]
    assert (found.name, round(found.value, 9)) == ("accuracy", 5)
    words = verdict.drop(measured(wer_float=0.1, wer_quantized=0.13))
    assert "word error" in words.name and round(words.value, 9) == 3, "errors that rise are a drop"
    boxes = verdict.drop(measured(map_float=0.4, map_quantized=0.38))
    assert boxes.name == "mAP" and round(boxes.value, 9) == 2
    scores = measured()
    scores.scores = SimpleNamespace(agree=SimpleNamespace(value=0.97))
    agree = verdict.drop(scores)
    assert "agreement" in agree.name and round(agree.value, 9) == 3
    with pytest.raises(DataError, match="nothing to measure a drop with") as caught:
        verdict.drop(measured())
    assert caught.value.key == "max_drop"


def test_networks_are_compared_batch_by_batch(tmp_path: Path) -> None:
    source, data = jobs.network("residual", tmp_path, labels=True)
    found = []
    for batch in (5, 24):
        recipe = Recipe.read({"data": {"batch": batch}}, "test")
        found.append(value(verdict.compare_on(source, source, str(data), recipe)).summary())
    assert found[0]["samples"] == found[1]["samples"] == 24
    assert found[0]["top1_agreement"] == found[1]["top1_agreement"] == 1 and found[0]["kl"] == pytest.approx(
        0, abs=1e-9
    )
    with pytest.raises(Exception, match="compared on samples"):
        value(verdict.compare_on(source, source, "stdlib", Recipe()))
