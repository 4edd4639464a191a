"""Pieces in which the ceiling holds, and what a plan says a language model costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bitwright import machine
from bitwright.core.formats import named
from bitwright.events import Progress
from bitwright.methods import registry
from bitwright.models.language import memory
from bitwright.models.language.arch import Architecture, Matrix
from bitwright.models.language.curvature import Curvature
from bitwright.models.model import Item
from tests import jobs, tiny


def item(method: str, rows: int, columns: int, transposed: bool = False, **format: Any) -> Item:
    found = registry.get(method)
    return Item(Matrix("m", "m", rows, columns, 0, transposed), named("int4", **format), found, found.options())


@pytest.mark.parametrize("columns", [16, 1000, 4096, 1 << 20])
@pytest.mark.parametrize("step", [1, 8, 32])
def test_pieces_are_whole_words_and_small(columns: int, step: int) -> None:
    for method in ("rtn", "gptq"):
        one = item(method, 5000, columns, group="channel")
        rows = memory.piece_rows(one, step)
        assert rows >= 1 and rows % step == 0
        limit = memory.SOLVE if method == "gptq" else memory.CACHED
        assert rows * columns <= max(limit, (32 if method == "gptq" else step) * columns)
    assert memory.checked_rows(one, step) % step == 0


def test_what_cannot_be_cut_comes_whole() -> None:
    assert memory.piece_rows(item("rtn", 5000, 4096, group="tensor"), 8) == 5000
    assert memory.piece_rows(item("rtn", 5000, 4096, transposed=True, group="channel"), 8) == 5000


def test_dearer_jobs_are_said_to_need_more(tmp_path: Path) -> None:
    source, text = tiny.make("llama", tmp_path / "source"), jobs.words(jobs.text(tmp_path))
    free = jobs.made(source, tmp_path / "out", layer={"method": "rtn", "group": 32})
    seen = jobs.made(source, tmp_path / "out", layer={"method": "gptq", "group": 32}, calibration=text)
    assert machine.BASE < free.memory < seen.memory
    assert free.estimate.seconds > 0 and seen.estimate.seconds > 0
    assert not memory.uses_text(free) and not memory.evaluates(free)
    assert memory.uses_text(seen) and memory.evaluates(seen)
    judged = jobs.made(source, tmp_path / "out", layer={"method": "rtn", "group": 32}, calibration=text)
    assert not memory.uses_text(judged) and memory.evaluates(judged)
    weighed = jobs.made(source, tmp_path / "out", layer={"method": "mse", "group": 32}, calibration=text)
    assert memory.uses_text(weighed)


def test_curvature_costs_what_it_is_said_to(tmp_path: Path) -> None:
    source, text = tiny.make("llama", tmp_path / "source"), jobs.words(jobs.text(tmp_path))
    plan = jobs.made(source, tmp_path / "out", layer={"method": "descent", "group": 32}, calibration=text)
    arch = Architecture.open(source)
    few, many = (memory.curvature_cost(plan, arch, "cpu", windows, 64) for windows in (4, 64))
    assert machine.BASE < few.needed <= many.needed and few.seconds < many.seconds
    assert many.spillable == 16 * few.spillable == 3 * 64 * 64 * 64 * machine.calibration_dtype("cpu").itemsize
    found = Curvature(
        arch, "cpu", torch.ones(4, 64, dtype=torch.int64), list(plan.items.values()), tmp_path, 1 << 26, 0,
        lambda item: memory.piece_rows(item, plan.container.step(item.format)),
    )  # fmt: skip
    list(found.compute(lambda size, label: Progress("quantize", size, 0, label)))
    grams = sum(g.nbytes for block in range(arch.count) for g in found.of(block).values())
    state = few.spillable // 3
    assert few.disk == grams + 2 * state


def test_a_ceiling_too_small_for_curvature_is_said(tmp_path: Path) -> None:
    plan = jobs.made(tiny.make("llama", tmp_path / "source"), tmp_path / "out", layer={"method": "rtn", "group": 32})
    plan.ceiling = 500 * machine.MIB
    cost = memory.Cost(400 * machine.MIB, 10 * machine.MIB, 1.0, 150 * machine.MIB)
    assert memory.curvature_mode(plan, cost, 60 * machine.MIB) is None
    assert memory.curvature_mode(plan, cost, 59 * machine.MIB) == "it needs 60 MiB of disk, and 59 are free"
    plan.ceiling = 399 * machine.MIB
    assert memory.curvature_mode(plan, cost, 1 << 40) == "it needs 400 MiB of memory, and the limit is 399"
