"""Rewrites leave the function as it is, are done where they promise a gain, and say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bitwright.engine.integer.calibrate import Seen, observe
from bitwright.engine.integer.rewrite import channel_axes, rescale

from bitwright.models.network.graph import Graph
from bitwright.models.network.session import Session
from bitwright.models.network.streams import find_streams
from tests import networks


def rescaled(graph: Graph, smooth: float, equalize: bool) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
    """The notes, and the network's outputs before and after."""
    feeds = networks.feeds(graph.model, 16)
    before = Session(graph.model).run(feeds)
    seen = Seen()
    list(observe(graph, [feeds], [], channel_axes(graph, smooth, equalize), seen))
    notes = rescale(graph, seen.channels, smooth, equalize, {})
    return notes, before, Session(graph.model).run(feeds)


@pytest.mark.parametrize("kind", ["mobile", "residual", "dense"])
def test_equalization_undoes_channels_of_unlike_range(kind: str) -> None:
    graph = Graph(networks.KINDS[kind]())
    assert find_streams(graph)
    for stream in find_streams(graph):
        skew = np.ones(stream.size)
        skew[: max(1, stream.size // 4)] = 200.0
        graph.apply(stream, skew)
    notes, before, after = rescaled(graph, 0.0, True)
    assert notes
    for name, value in after.items():
        np.testing.assert_allclose(value, before[name], rtol=1e-3, atol=1e-3)


def test_channels_that_are_alike_are_left_alone() -> None:
    notes, _, _ = rescaled(Graph(networks.KINDS["mobile"]()), 0.0, True)
    assert notes == []
    notes, _, _ = rescaled(Graph(networks.KINDS["transformer"]()), 0.0, False)
    assert notes == []


def test_smoothing_moves_scales_behind_normalisations() -> None:
    graph = Graph(networks.KINDS["transformer"]())
    notes, before, after = rescaled(graph, 0.5, False)
    assert notes
    for name, value in after.items():
        np.testing.assert_allclose(value, before[name], rtol=1e-3, atol=1e-4)
