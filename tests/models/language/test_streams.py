"""The float stream and its quantized twin see the same tokens side by side, and what the twin lost is made up for."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bitwright import machine
from bitwright.core.formats import named
from bitwright.engine import plan as planning
from bitwright.events import Progress
from bitwright.methods import registry
from bitwright.models.language.arch import Architecture, Matrix
from bitwright.models.language.calibration import Stage
from bitwright.models.language.streams import Streams, Twin
from bitwright.models.model import Item
from bitwright.recipe import Recipe
from tests import jobs, tiny

BUDGET = 1 << 22


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The streams differ by what is quantized, not by bfloat16."""
    monkeypatch.setattr(machine, "calibration_dtype", lambda device: torch.float32)


def opened(kind: str, folder: Path, noise: float, rounding: Any = None) -> tuple[Streams, list[Item]]:
    """Streams of a tiny model whose finished matrices come back with noise of a share `noise` of their own size."""
    arch = Architecture.open(tiny.make(kind, folder / kind))
    ids = torch.randint(1, 1000, (8, 32), generator=torch.Generator().manual_seed(2))
    method = registry.get("descent")
    items = [Item(part, named("int4", group="channel"), method, method.options()) for part in arch.quantizable()]

    def decoded(item: Item) -> torch.Tensor:
        w = arch.checkpoint.read(item.name).float()
        g = torch.Generator().manual_seed(sum(map(ord, item.name)))
        return w + noise * w.std() * torch.randn(w.shape, generator=g)

    text = SimpleNamespace(calibration=ids)
    return Streams(arch, "cpu", text, BUDGET, folder, decoded, rounding), items  # type: ignore[arg-type]


def passed(streams: Streams, items: list[Item], count: Any = None) -> list[tuple[list[str], Twin]]:
    """The stages of all blocks, each taken as solved."""
    done: set[str] = set()
    found = []
    for block in range(streams.arch.count):
        mine = [item for item in items if item.part.block == block]
        for stage in streams.through(block, mine, done.__contains__, told, count):
            if isinstance(stage, Stage):
                names = [item.name for item in stage.items]
                found.append((names, stage.recorder))
                done.update(names)
    return found


def result(steps: Generator[Any, None, Twin]) -> Twin:
    """What a generator returns when it is through."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def told(size: float, label: str) -> Progress:
    return Progress("quantize", size, 0, label)


def short(names: list[str]) -> list[str]:
    """Names without their blocks and experts."""
    return sorted({name.split(".")[-2] for name in names})


def test_matrices_come_in_the_order_in_which_their_inputs_do(tmp_path: Path) -> None:
    stages = passed(*opened("llama", tmp_path, 0.1))
    order = [["k_proj", "q_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]
    assert [short(names) for names, _ in stages] == order * 2


def test_all_experts_of_a_layer_come_together(tmp_path: Path) -> None:
    stages = passed(*opened("mixtral", tmp_path, 0.1))
    assert [len(names) for names, _ in stages] == [3, 1, 8, 4] * 2


@pytest.mark.parametrize("kind", ["llama", "mixtral", "gemma3", "gpt2", "gpt_oss"])
def test_a_twin_that_lost_nothing_leaves_all_targets_as_they_are(kind: str, tmp_path: Path) -> None:
    streams, items = opened(kind, tmp_path, 0.0)
    byname = {item.name: item for item in items}
    for names, twin in passed(streams, items):
        for name in names:
            if name in twin.leader:
                w = torch.randn(byname[name].rows, byname[name].columns)
                torch.testing.assert_close(twin.aim(byname[name], 0, w), w, rtol=0, atol=1e-4)
    for i in range(len(streams.hidden)):
        torch.testing.assert_close(streams.twin[i], streams.hidden[i], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "mixtral", "gpt2", "phi", "gemma3", "qwen3_moe", "gpt_oss"])
def test_targets_answer_closer_to_the_float_network(kind: str, tmp_path: Path) -> None:
    """By what the twin's own sums say: E|W x - V x_hat|^2 = const - 2 <V - W, W C> + tr((V - W) H (V - W)^T)."""
    streams, items = opened(kind, tmp_path, 0.2)
    byname, corrected = {item.name: item for item in items}, 0
    for names, twin in passed(streams, items):
        for name in names:
            item, leader = byname[name], twin.leader.get(name, "")
            if any(twin._sums[leader, half].cross is None for half in (0, 1)):
                continue
            w = streams.arch.checkpoint.read(name).float()
            w = w.T.contiguous() if item.part.transposed else w
            move = twin.aim(item, 0, w) - w
            sums = [twin._sums[leader, half] for half in (0, 1)]
            lost = w @ sum(s.cross for s in sums)  # type: ignore[arg-type, misc]
            if name in twin._whole and (name, 0) in twin._residuals:
                lost = lost + twin._residuals[name, 0] + twin._residuals[name, 1]
            rise = float(((move @ twin.stats[leader].moment) * move).sum() - 2 * (move * lost).sum())
            assert rise <= 0, name
            corrected += bool(move.any())
    assert corrected > len(items) // 3


@pytest.mark.parametrize(
    ("kind", "joined"),
    [
        ("llama", ["down_proj", "o_proj"]),
        ("mixtral", ["o_proj"]),  # experts' answers are weighed before they are added
        ("gemma3", []),  # a norm comes between
        ("gpt2", ["c_proj"]),
        ("gpt_neox", []),  # attention and MLP are added to each other first
    ],
)
def test_what_is_added_to_the_residual_stream_is_found(kind: str, joined: list[str], tmp_path: Path) -> None:
    found = {name for _, twin in passed(*opened(kind, tmp_path, 0.1)) for name, _ in twin._residuals}
    assert short(sorted(found)) == joined


def test_the_head_sees_both_streams(tmp_path: Path) -> None:
    streams, items = opened("llama", tmp_path, 0.1)
    passed(streams, items)
    head = Matrix("lm_head.weight", "lm_head.weight", 1024, 64, None)
    steps = streams.at_head([head], told, lambda name, x: None)
    twin = result(steps)
    assert twin.stats["lm_head.weight"].n == 8 * 32
    assert all(bool(twin._sums["lm_head.weight", half].cross.any()) for half in (0, 1))  # type: ignore[union-attr]


def test_both_streams_send_a_token_to_the_same_experts(tmp_path: Path) -> None:
    for names, twin in passed(*opened("mixtral", tmp_path, 0.5)):
        assert all(
            twin._sums[twin.leader[name], half].paired for name in names for half in (0, 1) if name in twin.stats
        )


def test_inputs_are_rounded_in_the_twin_alone(tmp_path: Path) -> None:
    streams, items = opened("llama", tmp_path, 0.0, lambda name, x: (x * 4).round() / 4)
    (_, first), *_ = passed(streams, items)
    leader = next(iter(first.stats))
    rows = first.stats[leader].moment * 16
    torch.testing.assert_close(rows, rows.round(), rtol=0, atol=1e-2)  # sums of products of quarters
    assert all(bool(first._sums[leader, half].cross.any()) for half in (0, 1))  # type: ignore[union-attr]


def test_each_matrix_has_its_own_rounding_of_an_input_that_is_shared(tmp_path: Path) -> None:
    """Only values are rounded, coarsely: queries and keys, and so attention's weights, stay what they were."""

    def rounding(name: str, x: torch.Tensor) -> torch.Tensor:
        return 0 * x if ".0." in name and "v_proj" in name else x

    streams, items = opened("llama", tmp_path, 0.0, rounding)
    _, second, *_ = [twin for _, twin in passed(streams, items)]
    leader = next(iter(second.stats))
    assert not bool(second.stats[leader].moment.any()), "the output projection is fed sums of values"
    first = opened("llama", tmp_path / "b", 0.0, lambda name, x: 0 * x if "v_proj" in name else x)
    assert bool(passed(*first)[0][1].stats[leader.replace("o_proj", "q_proj")].moment.any())


def test_what_does_not_fit_the_budget_changes_nothing(tmp_path: Path) -> None:
    roomy, items = opened("llama", tmp_path / "a", 0.1)
    tight, same = opened("llama", tmp_path / "b", 0.1)
    tight._budget = 0
    for (names, one), (_, other) in zip(passed(roomy, items), passed(tight, same), strict=True):
        leader = one.leader[names[0]]
        assert torch.equal(one.stats[leader].moment, other.stats[leader].moment)
        assert all(torch.equal(one._sums[leader, h].cross, other._sums[leader, h].cross) for h in (0, 1))  # type: ignore[arg-type]


def test_efforts_are_told_apart(tmp_path: Path) -> None:
    source, text = tiny.make("llama", tmp_path / "m"), jobs.text(tmp_path)
    plans = {e: jobs.made(source, tmp_path / e, effort=e, calibration=jobs.words(text)) for e in ("fast", "default")}
    assert [plans[e].effort.summary() for e in plans] == [
        {"corrects": False, "weighing": 0},
        {"corrects": True, "weighing": 4},
    ]
    certificates = {e: jobs.finish(plan) for e, plan in plans.items()}
    assert certificates["default"]["effort"] == plans["default"].effort.summary()
    made_up = {e: [row for row in c["rows"] if row["correction"]] for e, c in certificates.items()}
    assert not made_up["fast"]
    assert len(made_up["default"]) == 11  # all but the first block's queries, keys and values


def test_what_does_not_fit_the_ceiling_is_left_out_by_name(tmp_path: Path) -> None:
    wide = tiny.make("llama", tmp_path / "m", hidden_size=128, intermediate_size=2048)
    recipe = Recipe.read({"calibration": jobs.words(jobs.text(tmp_path))}, "test")
    roomy = planning.make(wide, tmp_path / "out", recipe)
    fast = planning.make(wide, tmp_path / "out", recipe.model_copy(update={"effort": "fast"}))
    assert roomy.effort.corrects
    assert fast.estimate.needed < roomy.estimate.needed
    tight = planning.make(wide, tmp_path / "out", recipe, max_ram=fast.estimate.needed)
    assert not tight.effort.corrects
    assert any("errors of earlier matrices are not made up for: that needs" in note for note in tight.notes)
