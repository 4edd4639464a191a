"""The fewest parts float: what is asked of the engine, on a model that costs nothing, and on a real one."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bitwright.engine import sensitivity
from bitwright.events import Note
from bitwright.files.folder import open_checkpoint
from bitwright.models.kind import Words
from bitwright.models.model import Drop
from tests import jobs, tiny


class Fake:
    """A plan of eight parts whose quality is a function of how many stay float."""

    def __init__(self, value: Callable[[int], float], limit: float, count: int = 8) -> None:
        self.value, self.tried, self.notes = value, [0], list[str]()
        self.recipe = SimpleNamespace(max_drop=limit)
        self.items = {f"p{i}": None for i in range(count)}
        self.floats: dict[str, str] = {}
        words = Words("network", "layer", "layers", "data", "sample", "points", "", "")
        self.model = SimpleNamespace(
            kind=SimpleNamespace(words=words), independent=False, drop=self.drop, rank=self.rank
        )

    def drop(self, plan: Any, data: Any) -> Generator[Any, None, Drop]:
        yield from ()
        return Drop("accuracy", self.value(len(plan.floats)))

    def rank(self, plan: Any, data: Any) -> Generator[Any, None, list[str]]:
        yield from ()
        return sorted(self.items, reverse=True)

    def without(self, names: list[str], why: str) -> Any:
        self.tried.append(len(names))
        return SimpleNamespace(model=self.model, floats=dict.fromkeys(names, why), label="", recipe=self.recipe)


def chosen(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str]]:
    """The parts that stay float, and what was said on the way."""

    class Writer:
        def __init__(self, plan: Any, journal: Any, label: str | None = None) -> None:
            self.plan, self.journal = plan, journal

        def run(self, data: Any) -> Generator[Any, None, None]:
            yield from ()

    monkeypatch.setattr(sensitivity, "Writer", Writer)
    events, said = sensitivity.fall_back(Writer(fake, None), None), []  # type: ignore[arg-type]
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return list(end.value.plan.floats), said
        if isinstance(event, Note):
            said.append(event.text)


@pytest.mark.parametrize("needed", range(8))
def test_the_fewest_that_do_are_found(needed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(lambda floats: 0.0 if floats >= needed else 9.0, 1.0)
    found, said = chosen(fake, monkeypatch)
    assert found == [f"p{7 - i}" for i in range(needed)], "those whose rounding costs most"
    assert len(fake.tried) == len(set(fake.tried)) <= 1 + 2 * 3, "each number once, and few of them"
    assert len(said) == len(fake.tried) - 1 and fake.notes == said


def test_what_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(lambda floats: 9.0 - floats, 1.0)
    found, said = chosen(fake, monkeypatch)
    assert len(found) == 7, "one part at least is quantized"
    assert "even with 7 layers float" in said[-1] and "2.00 points (limit 1)" in said[-1]
    alone = Fake(lambda floats: 9.0, 1.0, count=1)
    found, _ = chosen(alone, monkeypatch)
    assert found == [] and "one layer only" in alone.notes[0]


def test_a_language_model_keeps_the_fewest_matrices_float(tmp_path: Path) -> None:
    size = dict(num_hidden_layers=1)
    source = tiny.make("llama", tmp_path / "source", **size)
    recipe: dict[str, Any] = {
        "layer": {"format": "int2", "group": 32, "method": "gptq"},
        "calibration": {"source": "self", "windows": 8, "length": 32, "heldout_windows": 2},
        "max_float_percent": 100,
    }
    plain = jobs.made(source, tmp_path / "plain", **recipe)
    jobs.finish(plain)
    plan = jobs.made(source, tmp_path / "out", **recipe, max_drop=60.0)
    certificate = jobs.finish(plan)
    kept = certificate["kept_float"]
    assert 1 <= len(kept) < 7 and all("to lose at most 60 %" in why for why in kept.values())
    counts = [note for note in certificate["notes"] if note.endswith("on calibration")]
    assert f"{len(kept)} matri{'x' if len(kept) == 1 else 'ces'} float" in " ".join(counts)
    assert not any(path.name in ("trial", "journal.jsonl") for path in plan.out.iterdir())
    before, trial, after = (open_checkpoint(path) for path in (source, plain.out, plan.out))
    # The final layout: float matrices as they were, the others with the codes they would have had anyhow.
    assert set(after.quantized) == set(trial.quantized) - set(kept) == {row["name"] for row in certificate["rows"]}
    for name in trial.quantized:
        if name in kept:
            assert torch.equal(after.read(name), before.read(name))
        else:
            mine, other = after.qtensor(name), trial.qtensor(name)
            assert torch.equal(mine.codes, other.codes) and torch.equal(mine.scale, other.scale)
    assert certificate["loaded_by_transformers"]["max_kl"] < 1e-5
    assert set(certificate["output"]["sha256"]) == {path.name for path in plan.out.glob("*.safetensors")}


def test_a_limit_that_is_kept_anyhow_changes_nothing(tmp_path: Path) -> None:
    source = tiny.make("llama", tmp_path / "source", num_hidden_layers=1)
    recipe: dict[str, Any] = {
        "layer": {"format": "int8", "group": 32, "method": "gptq"},
        "calibration": {"source": "self", "windows": 4, "length": 32, "heldout_windows": 2},
    }
    first = jobs.finish(jobs.made(source, tmp_path / "a", **recipe))
    second = jobs.finish(jobs.made(source, tmp_path / "b", **recipe, max_drop=50.0))
    assert first["output"] == second["output"] and second["kept_float"] == {}
