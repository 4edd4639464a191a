"""Layers that wait on disk until a network is whole: what is read back is what was kept, and damage is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitwright.core.formats import named
from bitwright.core.qtensor import QTensor
from bitwright.methods import rtn
from bitwright.models.model import Item, Outcome, Plan
from bitwright.models.network.sink import LayerSink
from tests import jobs


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    source, data = jobs.network("residual", tmp_path)
    return jobs.made(source, tmp_path / "out.onnx", layer={"method": "rtn"}, data={"source": str(data)})


def fresh(plan: Plan) -> LayerSink:
    """The sink as a new process would see it."""
    made = plan.model.sink(plan)
    assert isinstance(made, LayerSink)
    made.create()
    return made


def solved(plan: Plan, item: Item, format: str) -> QTensor:
    w = plan.model.rows(item, 0, item.rows).numpy()
    return rtn.quantize(w, named(format, group="channel", scale="fp32"))


@pytest.mark.parametrize("format", ["int8_narrow", "int3", "int4_narrow"])
@pytest.mark.parametrize("biased", [True, False])
def test_what_is_read_is_what_was_kept(biased: bool, format: str, plan: Plan) -> None:
    """At the width it really has, which need not be the one asked for."""
    item = next(iter(plan.items.values()))
    q, bias = solved(plan, item, format), np.arange(item.rows, dtype=np.float32) / 3
    first, sums = fresh(plan), {}
    first.write(item, first.pack(item, 0, Outcome(q, extras={"bias": bias} if biased else {})), sums)
    second = fresh(plan)
    assert second.intact(sums) and not second.weights
    back, found = second.read(item)
    assert back.format == q.format
    assert np.array_equal(back.decode(), q.decode()) and back.scale.dtype == np.float32
    assert (found is None) == (not biased) and (found is None or np.array_equal(found, bias))
    for sink in (first, second):
        assert set(sink.weights) == {item.part.weight} and set(sink.biases) == ({item.name} if biased else set())


def test_damage_and_loss_are_found(plan: Plan) -> None:
    item, sink = next(iter(plan.items.values())), fresh(plan)
    sums: dict[str, int] = {}
    sink.write(item, sink.pack(item, 0, Outcome(solved(plan, item, "int8_narrow"))), sums)
    path = sink.path(item.name)
    data = bytearray(path.read_bytes())
    for at in (0, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert not sink.intact(sums)
    path.write_bytes(data[:-1])
    assert not sink.intact(sums)
    path.write_bytes(data)
    assert sink.intact(sums)
    path.unlink()
    assert not sink.intact(sums)


def test_each_attempt_has_a_folder_of_its_own(plan: Plan) -> None:
    names = list(plan.items)
    attempts = [plan.without(names[:1], "why"), plan.without(names[:2], "why"), plan.without(names[1:2], "why")]
    folders = [fresh(one).folder for one in (plan, *attempts)]
    assert len(set(folders)) == 4 and all(folder.parent == plan.partial for folder in folders)
    assert fresh(plan.without(names[:1], "another reason")).folder == folders[1], (
        "the same attempt comes back to its own"
    )
    assert plan.label == "" and all(one.label for one in attempts)
    assert attempts[0].attempt_of is plan and attempts[0].without(names[2:3], "why").attempt_of is plan
