"""The one road from a weight to its row: pieces are the whole, what ran is named, figures are of what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitwright.core.formats import named
from bitwright.core.measure import Error
from bitwright.core.qtensor import QTensor
from bitwright.core.stats import Stats
from bitwright.engine.journal import Journal
from bitwright.engine.run import run
from bitwright.engine.write import Writer, solve, together, used
from bitwright.events import Finished, Row
from bitwright.files.container import Stored
from bitwright.files.folder import open_checkpoint
from bitwright.methods import Seen, registry
from bitwright.models.language import memory
from bitwright.models.language.sink import FolderSink
from bitwright.models.model import Copy, Item, Plan, Turn
from tests import jobs, tiny


class Part:
    """A matrix that no model has."""

    def __init__(self, rows: int, columns: int) -> None:
        self.name, self.rows, self.columns = "part", rows, columns


def item(method: str, format: str = "int4", rows: int = 12, columns: int = 32, **options: Any) -> Item:
    found = registry.get(method)
    return Item(Part(rows, columns), named(format, group=16, scale="fp32"), found, found.options(**options))


def weights(rows: int = 12, columns: int = 32) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def seen(seed: int, columns: int = 32) -> Seen:
    x = torch.randn(200, columns, generator=torch.Generator().manual_seed(seed)) * torch.rand(columns) * 3
    return Seen(Stats.of(x))


def test_a_method_that_needs_nothing_never_falls_back() -> None:
    turn = Turn([], (Seen(),), "there are no samples")
    for name in ("rtn", "mse"):
        method, why = used(item(name), turn)
        assert (method.name, why) == (name, None)


@pytest.mark.parametrize("name", ["gptq", "descent", "adaround"])
def test_a_fallback_has_its_own_name_and_says_why(name: str) -> None:
    method, why = used(item(name), Turn([], (Seen(),), "expert 3 saw 1 of 9 tokens needed"))
    assert (method.name, why) == ("mse", f"expert 3 saw 1 of 9 tokens needed: mse instead of {name}")
    assert used(item(name), Turn([]))[0].name == name
    w = weights()
    fallen = solve(w, item(name), Turn([], (Seen(),), "no tokens"))
    plain = solve(w, item("mse"), Turn([]))
    assert torch.equal(fallen.codes, plain.codes) and torch.equal(fallen.scale, plain.scale)


def test_every_method_that_needs_data_names_one_that_does_not() -> None:
    for method in registry.all():
        if method.needs != "nothing" and method.scope == "matrix":
            assert method.fallback is not None
            assert registry.get(method.fallback).needs == "nothing"


def test_groups_of_rows_have_their_own_inputs() -> None:
    """A convolution of several groups: each is a matrix of its own, one below the other."""
    w, whole = weights(), item("gptq")
    turn = Turn([whole], (seen(1), seen(2), seen(3)))
    q = solve(w, whole, turn)
    for i, one in enumerate(turn.seen):
        alone = solve(w[4 * i : 4 * i + 4], whole, Turn([whole], (one,)))
        assert torch.equal(q.codes[4 * i : 4 * i + 4], alone.codes)
        assert torch.equal(q.scale[4 * i : 4 * i + 4], alone.scale)
    assert q.shape == (12, 32)


class Asked:
    """A method's stand-in that keeps what it is shown, and rounds to nearest."""

    def __init__(self) -> None:
        self.seen: list[tuple[tuple[int, ...], Any]] = []

    def solve(self, w: Any, format: Any, seen: Seen, options: Any) -> QTensor:
        self.seen.append((tuple(w.shape), seen.curvature))
        solved: QTensor = registry.get("rtn").solve(w, format, seen, options)
        return solved


def test_every_piece_has_the_curvature_of_its_own_rows() -> None:
    """Rows of a piece, groups of a convolution, matrices with one input: each sees its block of the diagonal."""
    g = torch.arange(24.0 * 24).reshape(24, 24)
    first = {"a": 0, "b": 12}

    def cut(item: Item, start: int, stop: int) -> torch.Tensor:
        at = first[item.name]
        return g[at + start : at + stop, at + start : at + stop]

    asked = Asked()
    a, b = (replace(item("rtn"), method=replace(registry.get("rtn"), solve=asked.solve)) for _ in "ab")
    a.part.name, b.part.name = "a", "b"
    turn = Turn([a, b], curvature=cut)
    solved = list(together([weights(), weights()], turn))
    assert [q.shape for q in solved] == [(12, 32)] * 2
    solve(weights(8), b, turn, 4)
    solve(weights(), a, replace(turn, seen=(Seen(), Seen(), Seen())))
    blocks = [(0, 12), (12, 24), (16, 24), (0, 4), (4, 8), (8, 12)]
    for (shape, seen), (start, stop) in zip(asked.seen, blocks, strict=True):
        assert shape == (stop - start, 32) and torch.equal(seen, g[start:stop, start:stop])
    list(together([weights(), weights()], Turn([a, b])))
    assert asked.seen[-1] == ((24, 32), None), "outputs that count alike are solved as one matrix"


LAYER = {"format": "int4", "group": 32, "symmetric": False}
WIDE = {"hidden_size": 128, "head_dim": 32, "intermediate_size": 256, "num_hidden_layers": 1}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make("llama", tmp_path_factory.mktemp("write") / "llama", **WIDE)


@pytest.mark.parametrize("method", ["rtn", "mse"])
def test_pieces_are_the_whole(method: str, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for cached in (32 * 128, 1 << 17):
        monkeypatch.setattr(memory, "CACHED", cached)
        plan = jobs.made(llama, tmp_path / str(cached), layer=LAYER | {"method": method})
        pieces = {-(-i.rows // plan.model.piece_rows(plan, i)) for i in plan.items.values()}
        assert (max(pieces) > 1) == (cached < 1 << 17)
        certificate = jobs.finish(plan)
        found.append((certificate["output"], [{**row, "seconds": 0} for row in certificate["rows"]]))
    assert found[0][0] == found[1][0]
    for mine, other in zip(found[0][1], found[1][1], strict=True):
        assert {k: pytest.approx(v) if isinstance(v, float) else v for k, v in mine.items()} == other


def writer(plan: Plan) -> Writer:
    plan.partial.mkdir(parents=True, exist_ok=True)
    return Writer(plan, Journal(plan.partial, "job"))


def test_rows_are_of_what_is_stored_and_finished_parts_are_restored(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = jobs.made(llama, tmp_path / "out", layer=LAYER | {"method": "rtn"})
    starts: dict[str, list[int]] = {}
    real = FolderSink.write

    def write(self: FolderSink, item: Item, packed: list[Stored], sums: dict[str, int]) -> None:
        starts.setdefault(item.name, []).append(packed[0].first)
        real(self, item, packed, sums)

    monkeypatch.setattr(FolderSink, "write", write)
    first = writer(plan)
    rows = [event for event in first.run(None) if isinstance(event, Row)]
    assert [row.name for row in rows] == list(starts) and set(first.rows) == set(plan.items)
    assert first.written == len(plan.items) + len(plan.sink.untouched)
    plan.model.finish(plan)
    source, stored = open_checkpoint(llama), open_checkpoint(plan.partial)
    for row in rows:
        error = Error.between(source.read(row.name), stored.qtensor(row.name).decode())
        assert row.sqnr == pytest.approx(error.sqnr) and row.stored_bits == plan.stored(plan.items[row.name])
    starts.clear()
    again = writer(plan)
    assert again.rows == first.rows and again.sums == first.sums
    assert not [event for event in again.run(None) if isinstance(event, Row)] and not starts


def test_what_is_finished_comes_to_be_restored(tmp_path: Path) -> None:
    source, data = jobs.network("residual", tmp_path)
    plan = jobs.made(source, tmp_path / "out.onnx", layer={"method": "rtn"}, data={"source": str(data)})
    made = writer(plan)
    samples = plan.model.samples  # type: ignore[attr-defined]
    list(made.run(samples))
    name = next(iter(plan.items))
    restored: list[str] = []
    turn = Turn([plan.items[name]], (), restore=lambda item: restored.append(item.name))
    assert not list(made._take(turn))
    assert restored == [name]


def test_a_width_that_a_method_chose_is_what_the_row_says(tmp_path: Path) -> None:
    source, data = jobs.network("residual", tmp_path)
    plan = jobs.made(source, tmp_path / "out.onnx", layer={"method": "rtn"}, data={"source": str(data)})
    one = next(iter(plan.items.values()))
    w = plan.model.rows(one, 0, one.rows)
    other = replace(one, format=named("int3_narrow", group="channel", scale="fp32"))
    q = solve(w, other, Turn([other]))
    q = QTensor(q.format, q.codes.numpy(), q.scale.numpy())
    [row] = writer(plan)._take(Turn([one], (), solved=q))
    assert row.format == "int3_narrow channel" != one.words
    assert row.sqnr == pytest.approx(Error.between(w.numpy(), np.asarray(q.decode())).sqnr)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_copies_come_once(llama: Path, tmp_path: Path) -> None:
    plan = jobs.made(llama, tmp_path / "out", layer=LAYER | {"method": "rtn"})
    one = writer(plan)
    turns = list(plan.model.turns(plan, None, one.finished))
    assert sorted(t.name for t in turns if isinstance(t, Copy)) == sorted(plan.sink.untouched)


SCHEMES: list[dict[str, Any]] = [
    {"group": 32},
    {"group": 32, "symmetric": False},
    {"format": "int8", "group": "channel"},
    {"format": "fp8"},
    {"format": "int2", "group": 32, "symmetric": False},
]


@pytest.mark.parametrize("layer", SCHEMES)
def test_any_number_of_threads_gives_the_same_bytes_and_figures(
    layer: dict[str, Any], llama: Path, tmp_path: Path, threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CACHED", 32 * 128)
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        plan = jobs.made(llama, tmp_path / str(count), layer={"method": "rtn", **layer})
        events = list(run(plan))
        assert isinstance(events[-1], Finished)
        rows = [event for event in events if isinstance(event, Row)]
        figures = [[getattr(r, f.name) for f in fields(r) if f.name != "seconds"] for r in rows]
        certificate = events[-1].certificate
        found.append((certificate["output"], certificate["histogram"], figures))
    assert found[0] == found[1] == found[2]
