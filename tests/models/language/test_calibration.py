"""Which matrices are solved together, and what each is shown of its input."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bitwright.core.formats import named
from bitwright.core.stats import Stats
from bitwright.methods import registry
from bitwright.models.language.arch import Matrix
from bitwright.models.language.calibration import group
from bitwright.models.model import Item

WIDTH = 32


class Recorder:
    """What calibration saw: `leader` of each matrix, and the record of each leader's input."""

    def __init__(self, leader: dict[str, str], tokens: dict[str, int]) -> None:
        self.leader = leader
        self.stats = {name: Stats.of(torch.randn(count, WIDTH)) for name, count in tokens.items()}


def item(name: str, method: str = "gptq", format: str = "int4", expert: int | None = None, **layer: Any) -> Item:
    found = registry.get(method)
    part = Matrix(name, name, 16, WIDTH, 0, expert=expert)
    return Item(part, named(format, group=layer.get("group", 16)), found, found.options())


def grouped(items: list[Item], recorder: Any, finished: tuple[str, ...] = (), rows: int = 1000) -> list[Any]:
    return list(group(items, recorder, lambda name: name in finished, lambda _: rows, 64))


def names(found: list[Any]) -> list[list[str]]:
    return [[one.name for one in items] for items, *_ in found]


QKV = Recorder({"q": "q", "k": "q", "v": "q", "o": "o"}, {"q": 100, "o": 100})


def test_what_shares_an_input_goes_together() -> None:
    items = [item("q"), item("k"), item("o"), item("v")]
    found = grouped(items, QKV)
    assert names(found) == [["q", "k", "v"], ["o"]]
    for _, seen, why in found:
        assert why is None and seen.stats is not None and seen.stats.n == 100 and seen.shared is not None
    # A batch that was half written comes back whole: the last bit of a product depends on its rows.
    assert names(grouped(items, QKV, ("k",))) == [["q", "k", "v"], ["o"]]
    assert names(grouped(items, QKV, ("q", "k", "v"))) == [["o"]]


def test_large_ones_come_alone_and_share_what_was_made_of_the_input() -> None:
    found = grouped([item("q"), item("k")], QKV, rows=20)
    assert names(found) == [["q"], ["k"]]
    assert found[0][1].shared is found[1][1].shared is not None
    assert names(grouped([item("q"), item("k")], QKV, ("q",), rows=20)) == [["k"]]


@pytest.mark.parametrize(
    "other",
    [item("k", "descent"), item("k", format="int8"), item("k", "rtn"), item("k", group="tensor"), item("k", group=8)],
    ids=["method", "format", "data-free", "tensor", "group"],
)
def test_what_is_unlike_does_not(other: Item) -> None:
    assert names(grouped([item("q"), other, item("v")], QKV)) == [["q", "v"], ["k"]]


def test_too_little_is_said() -> None:
    seen = Recorder({"e": "e", "f": "f", "g": "g"}, {"e": 63, "f": 64})
    found = grouped([item("e", expert=0), item("f", expert=1), item("g", expert=2)], seen)
    reasons = {items[0].name: why for items, _, why in found}
    assert reasons == {"e": "expert 0 saw 63 of 64 tokens needed", "f": None, "g": "expert 2 saw 0 of 64 tokens needed"}
    assert grouped([item("x")], Recorder({}, {}))[0][2] == "never used"
    assert grouped([item("x")], None)[0][2] == "calibration does not reach it"
    assert grouped([item("x", "mse")], None)[0][2] is None
    assert grouped([item("e", "mse", expert=0)], seen)[0][1].stats.n == 63, "what is known is used all the same"
