"""Channels that are added for integer kernels change nothing but the time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bitwright.events import Row
from bitwright.files.onnx import decode, read
from bitwright.models.network.check import check
from bitwright.models.network.graph import Graph
from bitwright.models.network.pad import without_padding
from bitwright.models.network.session import Session
from tests import jobs, networks
from tests.networks import Net


def mobile(channels: int, tail: str = "") -> onnx.ModelProto:
    """Expand, depthwise with a gate beside it, project; and the rest of a block that `tail` names."""
    n = Net()
    x = n.add("Relu", n.norm(n.conv(n.add("Relu", n.conv("x", 3, 8)), 8, channels, 1, bias=False), channels))
    if tail == "concat":
        x = n.add("Concat", n.conv(x, channels, channels, groups=channels), x, axis=1)
        return n.model(networks.IMAGE, [n.conv(x, 2 * channels, 4)])
    x = n.add("HardSwish", n.norm(n.conv(x, channels, channels, 5, groups=channels), channels))
    if tail == "output":
        return n.model(networks.IMAGE, [x])
    gate = n.conv(n.add("Relu", n.conv(n.add("GlobalAveragePool", x), channels, 8, 1)), 8, channels, 1)
    x = n.add("Mul", x, n.add("HardSigmoid", gate))
    return n.model(networks.IMAGE, [n.conv(x, channels, 8, 1)])


@pytest.mark.parametrize(("channels", "more"), [(40, 8), (72, 8), (10, 6), (30, 2)])
def test_depthwise_layers_get_whole_vectors(channels: int, more: int) -> None:
    model = mobile(channels)
    feeds = networks.feeds(model)
    before = Session(model, optimize=False).run(feeds)
    graph = Graph(model, wide=True)
    onnx.checker.check_model(graph.model, full_check=True)
    assert "1 group of channels padded to multiples of 16 for integer kernels" in graph.notes
    assert {layer.outputs for layer in graph.layers if layer.groups > 1} == {channels + more}
    assert {layer.inputs for layer in graph.layers} == {3, 8, channels + more}
    assert all(len(mean) == len(deviation) == channels + more for mean, deviation in graph.normals.values())
    for name, after in Session(graph.model, optimize=False).run(feeds).items():
        assert np.abs(np.subtract(before[name], after)).max() <= 1e-5 * np.abs(before[name]).max()


@pytest.mark.parametrize(
    ("channels", "tail", "why"),
    [
        (32, "", "it is a multiple already"),
        (24, "", "a third more costs more than it gains"),
        (40, "output", "the network returns them"),
        (40, "concat", "a concatenation puts other channels behind them"),
    ],
)
def test_others_stay_as_they_are(channels: int, tail: str, why: str) -> None:
    graph = Graph(mobile(channels, tail), wide=True)
    assert {layer.outputs for layer in graph.layers if layer.groups > 1} == {channels}, why
    assert not any("padded" in note for note in graph.notes)


def test_a_padded_network_is_certified_and_checked_against_the_float_one(tmp_path: Path) -> None:
    source, data = jobs.network(lambda: mobile(40), tmp_path, samples=16)
    jobs.finish(jobs.made(source, tmp_path / "out.onnx", data={"source": str(data)}, layer={"format": "int4"}))
    rows = [event for event in check(tmp_path / "out.onnx", source) if isinstance(event, Row)]
    graph = Graph.open(source)
    integer = [layer for layer in graph.layers if layer.weight in decode(read(tmp_path / "out.onnx"))]
    assert {(row.name, row.rows, row.columns) for row in rows} == {(x.name, x.rows, x.columns) for x in integer}
    assert len(rows) >= 6 and all(row.sqnr > 10 for row in rows)


@pytest.mark.parametrize("recipe", [{"network": {"target": "gpu"}}, {"layer": {"method": "lsq"}}])
def test_where_it_gains_nothing_it_is_not_done(recipe: dict[str, Any], tmp_path: Path) -> None:
    source, data = jobs.network(lambda: mobile(40), tmp_path, samples=16)
    plan = jobs.made(source, tmp_path / "out.onnx", data={"source": str(data)}, **recipe)
    assert not any("padded" in note for note in plan.model.notes)


def test_only_channels_of_zero_are_padding() -> None:
    w = np.arange(1, 25, dtype=np.float32).reshape(4, 2, 3, 1)
    padded = np.pad(w, [(0, 12), (0, 14), (0, 0), (0, 0)])
    found = without_padding(padded, w.shape)
    assert found is not None and (found == w).all()
    assert without_padding(padded + 1, w.shape) is None and without_padding(w, (4, 2, 1, 1)) is None
    assert without_padding(w, padded.shape) is None and without_padding(w, (4, 6)) is None
