"""Rewrites leave the function as it is, are done where they promise a gain, and say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitwright.models.network.graph import Graph
from bitwright.models.network.observe import Observed, observe
from bitwright.models.network.session import Session
from bitwright.models.network.streams import find_streams
from bitwright.recipe import Network
from bitwright.rewrites import Subject, chosen, registry
from tests import networks


def rescaled(graph: Graph, smooth: float, equalize: bool) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
    """The notes, and the network's outputs before and after."""
    feeds = networks.feeds(graph.model, 16)
    before, notes = Session(graph.model).run(feeds), []
    settings = Network(smooth=smooth, equalize=equalize, bias="none")
    for rewrite in chosen(settings):
        assert rewrite.apply is not None
        subject, seen = Subject(graph, find_streams(graph), settings, {}), Observed()
        list(observe(graph, [feeds], [], rewrite.axes(subject), seen))
        notes += rewrite.apply(subject, seen.channels)
    return notes, before, Session(graph.model).run(feeds)


def test_the_recipe_chooses_them_and_their_order() -> None:
    assert registry.names() == ["absorb", "bias", "equalize", "smooth"]

    def names(**network: Any) -> list[str]:
        return [rewrite.name for rewrite in chosen(Network.model_validate(network))]

    assert names() == ["bias", "equalize"]
    assert names(equalize=False, bias="none") == []
    everything = names(absorb=True, smooth=0.5, bias="analytic")
    assert sorted(everything) == registry.names()
    assert everything.index("equalize") < everything.index("smooth") < everything.index("absorb")


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
