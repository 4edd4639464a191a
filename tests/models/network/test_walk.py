"""Samples carried through both networks: the float one is ONNX Runtime's, the twin has what was settled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitwright.models.network import walk as walking
from bitwright.models.network.graph import Graph
from bitwright.models.network.observe import Observed, observe, quantizers
from bitwright.models.network.placement import Placement, place
from bitwright.models.network.session import Session
from bitwright.models.network.walk import Walk, simulate
from bitwright.recipe import Network
from tests import networks

FLOAT = Placement("x86", ())


@pytest.mark.parametrize("kind", networks.KINDS)
def test_the_float_network_is_the_runtimes(kind: str) -> None:
    graph = Graph(networks.KINDS[kind]())
    feeds = [networks.feeds(graph.model, seed=i) for i in range(2)]
    steps, seen = Walk(graph, FLOAT, {}, feeds).steps(), []
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            outputs = end.value
            break
        seen.append(step.layer.name)
        assert step.count == 2
        for x, x_hat in step:
            assert x is x_hat or np.array_equal(x, x_hat), "nothing was rounded"
    assert seen == [layer.name for layer in graph.matrices]
    for i, batch in enumerate(feeds):
        for name, value in Session(graph.model).run(batch).items():
            np.testing.assert_allclose(outputs[name][i][0], value, rtol=1e-4, atol=1e-5)
            assert np.array_equal(*outputs[name][i])


def test_what_is_settled_is_what_the_twin_goes_on_with() -> None:
    graph = Graph(networks.residual())
    feeds = [networks.feeds(graph.model)]
    other = Graph(networks.residual())
    changed = other.layers[2]
    other.set_matrix(changed, other.matrix(changed) * np.float32(0.5))
    other.set_bias(changed, other.bias(changed) + 1)
    steps = Walk(graph, FLOAT, {}, feeds).steps()
    before = True
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            outputs = end.value
            break
        assert all(np.array_equal(x, x_hat) for x, x_hat in step) == before
        if step.layer.name == changed.name:
            step.settle(other.constant(changed.weight), other.bias(changed))
            before = False
            [(y, y_hat)] = step.outputs()
            assert not np.array_equal(y, y_hat)
    for name, value in Session(other.model).run(feeds[0]).items():
        np.testing.assert_allclose(outputs[name][0][1], value, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(outputs[name][0][0], Session(graph.model).run(feeds[0])[name], rtol=1e-4, atol=1e-5)


def test_activations_are_rounded_where_the_placement_says() -> None:
    graph, feeds = Graph(networks.residual()), [networks.feeds(networks.residual())]
    placement, seen = place(graph), Observed()
    list(observe(graph, feeds, placement.activations, {}, seen))
    affines = quantizers(placement, seen.values, Network())
    walk = Walk(graph, placement, affines, feeds)
    for step in walk.steps():
        affine = affines[step.layer.input]
        for _, x_hat in step:
            codes = x_hat / affine.scale
            np.testing.assert_allclose(codes, np.round(codes), atol=1e-3)
    found = simulate(graph, placement, affines, {}, feeds)
    exact = simulate(graph, FLOAT, {}, {}, feeds)
    for name in exact:
        assert not np.array_equal(found[name][0], exact[name][0])
        np.testing.assert_allclose(found[name][0], exact[name][0], atol=0.2 * np.abs(exact[name][0]).max())


def test_what_does_not_fit_in_memory_goes_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph(networks.mobile())
    feeds = [networks.feeds(graph.model, seed=i) for i in range(3)]
    monkeypatch.setattr(walking, "BUDGET", 1000)
    spilled = False
    steps = Walk(graph, FLOAT, {}, feeds, tmp_path).steps()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            outputs = end.value
            break
        spilled |= bool(list(tmp_path.iterdir()))
    for i, batch in enumerate(feeds):
        for name, value in Session(graph.model).run(batch).items():
            np.testing.assert_allclose(outputs[name][i][0], value, rtol=1e-4, atol=1e-5)
    del steps
    assert not list(tmp_path.iterdir()), "nothing is left"
