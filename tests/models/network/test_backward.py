"""The way back from a network's outputs to its layers: the gradients of autograd, or a reason and none."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch

from bitwright.models.network.backward import Backward
from bitwright.models.network.graph import Graph
from bitwright.models.network.replay import Replay
from tests import networks


def gradients(graph: Graph, feeds: Any, slopes: dict[str, torch.Tensor]) -> tuple[Backward, dict[str, torch.Tensor]]:
    backward, found = Backward(graph, graph.matrices, [*graph.outputs], feeds), dict[str, torch.Tensor]()
    backward.run(
        feeds, lambda answers: {name: slopes[name] for name in answers}, lambda la, g: found.update({la.name: g})
    )
    return backward, found


@pytest.mark.parametrize("kind", ["residual", "mobile", "dense", "transformer", "detector", "upsample"])
def test_gradients_are_those_of_a_whole_network_in_torch(kind: str) -> None:
    graph = Graph(networks.KINDS[kind]())
    feeds, replay = networks.feeds(graph.model, 3), Replay(graph)
    values = replay.run({name: torch.from_numpy(x) for name, x in feeds.items()})
    rng = torch.Generator().manual_seed(0)
    slopes = {name: torch.randn(values[name].shape, generator=rng) for name in graph.outputs}
    backward, found = gradients(graph, feeds, slopes)
    assert not backward.absent
    wanted = torch.autograd.grad(
        [values[name] for name in slopes], [values[layer.raw] for layer in graph.layers], [*slopes.values()]
    )
    for layer, g in zip(graph.layers, wanted, strict=True):
        torch.testing.assert_close(found[layer.name], g, atol=1e-5 * float(g.abs().max()), rtol=1e-4)


def passing(op: str, **attributes: Any) -> onnx.ModelProto:
    """Convolutions before, after and beside an operator."""
    n = networks.Net(opset=19)
    x = n.conv("x", 3, 4)
    beside = n.conv(x, 4, 4)
    y = n.conv(n.add(op, n.conv(x, 4, 4), **attributes), 4, 4)
    return n.model(networks.IMAGE, [n.add("GlobalAveragePool", y), n.add("GlobalAveragePool", beside)])


@pytest.mark.parametrize(
    ("op", "attributes", "why"),
    [
        ("Sin", {}, "no derivative of Sin"),
        ("AveragePool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, "torch answers otherwise at AveragePool"),
        ("LpPool", {"kernel_shape": [2, 2]}, "no derivative of LpPool"),
    ],
)
def test_what_passes_an_unknown_operator_has_no_gradient_at_all(op: str, attributes: Any, why: str) -> None:
    """The first convolution has one along its other way, which would be half of the truth."""
    graph = Graph(passing(op, **attributes))
    feeds = networks.feeds(graph.model, 2)
    slopes = {name: torch.ones(2, 4, 1, 1) for name in graph.outputs}
    backward, found = gradients(graph, feeds, slopes)
    first, beside, before, after = (layer.name for layer in graph.layers)
    assert backward.absent == {first: why, before: why}
    assert set(found) == {beside, after} and all(bool(g.any()) for g in found.values())


def test_matrices_of_a_recurrent_layer_and_what_is_before_it_have_none() -> None:
    graph = Graph(networks.KINDS["recurrent"]())
    backward = Backward(graph, graph.matrices, [*graph.outputs], networks.feeds(graph.model, 2))
    assert set(backward.absent.values()) == {"no derivative of LSTM"}
    assert [layer.op for layer in backward.layers] == ["MatMul"]


def test_a_layer_that_no_output_depends_on_is_named() -> None:
    n = networks.Net()
    shape = n.add("Shape", n.conv("x", 3, 4))
    graph = Graph(n.model(networks.IMAGE, [n.add("Reshape", n.conv("x", 3, 4), shape)]))
    backward = Backward(graph, graph.matrices, [*graph.outputs], networks.feeds(graph.model, 2))
    assert np.array_equal([*backward.absent.values()], ["no output depends on it"] * (len(graph.layers) - 1))
    assert len(backward.layers) == 1
