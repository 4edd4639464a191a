"""Moments in two halves, and layers that aim at what makes up for the inputs that they get."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from bitwright.core.formats import named
from bitwright.core.observe import Affine
from bitwright.core.stats import Stats
from bitwright.files.layers import Placement
from bitwright.methods import registry, rtn
from bitwright.models.model import Item
from bitwright.models.network.graph import Graph
from bitwright.models.network.moments import Record
from bitwright.models.network.settle import Settling
from bitwright.models.network.shared import Use
from bitwright.models.network.unfold import outputs_as_rows, unfold
from bitwright.models.network.walk import Step, Walk
from bitwright.recipe import Network
from bitwright.rewrites import chosen
from tests import networks
from tests.networks import Net

Array = np.ndarray[Any, Any]


def chain() -> onnx.ModelProto:
    """Two layers, the second of which is fed what the first has lost."""
    n = Net()
    return n.model(networks.IMAGE, [n.conv(n.conv("x", 3, 8), 8, 8)])


def grouped() -> onnx.ModelProto:
    n = Net()
    return n.model(networks.IMAGE, [n.conv(n.conv("x", 3, 8), 8, 8, groups=4)])


def summed() -> onnx.ModelProto:
    """A layer whose answer is added to what has lost something, too."""
    n = Net()
    x = n.conv("x", 3, 8)
    return n.model(networks.IMAGE, [n.add("Add", n.conv(n.conv(x, 8, 8), 8, 8), x)])


def worn(graph: Graph, seeds: range, last: int) -> Step:
    """The walk at its layer `last`; the weights before have lost a tenth, unevenly."""
    feeds = [networks.feeds(graph.model, 4, seed=seed) for seed in seeds]
    for number, step in enumerate(Walk(graph, Placement("x86", ()), {}, feeds).steps()):
        if number == last:
            return step
        weight = graph.constant(step.layer.weight)
        g = np.random.default_rng(0)
        step.settle(weight=np.asarray(weight * (0.9 + 0.1 * g.normal(size=weight.shape)), np.float32))
    raise AssertionError("no such layer")


def lost(step: Step, w: Array, beside: bool) -> float:
    """Squared error of the layer's answers, of what they are added to as well, with weights `w`; means left aside."""
    error = []
    for (x, x_hat), other in zip(step, step.beside(), strict=True):
        rows = [unfold(step.layer, each) for each in (x, x_hat)]
        assert rows[0] is not None and rows[1] is not None
        shape = step.layer.groups, -1, w.shape[1]
        before, after = (torch.from_numpy(np.array(m)).reshape(shape) for m in (step._walk.graph.matrix(step.layer), w))
        gap = (rows[0] @ before.mT - rows[1] @ after.mT).transpose(0, 1).reshape(-1, step.layer.outputs)
        if beside:
            assert other is not None
            gap += outputs_as_rows(step.layer, other[0]) - outputs_as_rows(step.layer, other[1])
        error.append(gap)
    whole = torch.cat(error)
    return float(((whole - whole.mean(dim=0)) ** 2).mean())


@pytest.mark.parametrize(("make", "last", "beside"), [(chain, 1, False), (grouped, 1, False), (summed, 2, True)])
def test_a_target_makes_up_for_what_was_lost_on_samples_never_seen(
    make: Callable[[], onnx.ModelProto], last: int, beside: bool
) -> None:
    graph, network = Graph(make()), Network()
    step = worn(graph, range(4), last)
    layer = Settling(graph, step, network, None, [r for r in chosen(network) if r.correct])
    layer.seen("nothing", corrects=True)
    fresh, w = worn(graph, range(10, 14), last), graph.matrix(step.layer)
    assert lost(fresh, layer.target, beside) < 0.6 * lost(fresh, w, beside)
    format = named("int8_narrow", group="channel", scale="fp32")
    item = Item(step.layer, format, registry.get("rtn"), registry.get("rtn").options())
    target = layer.aim(item, 0, torch.from_numpy(np.array(w)))
    done = layer.settle(item, 0, None, rtn.quantize(target.numpy(), format))
    assert np.abs(done.q.decode() - layer.target).max() < 0.01 * np.abs(layer.target).max()
    assert done.correction is not None and done.correction.startswith("inputs")
    assert ("residual" in done.correction) == beside


def test_nothing_lost_leaves_the_weights_as_they_are() -> None:
    graph, network = Graph(chain()), Network()
    layer = Settling(graph, worn(graph, range(2), 0), network, None, ())
    layer.seen("nothing", corrects=True)
    w = torch.from_numpy(np.array(layer.matrix))
    assert layer.aim(None, 0, w) is w  # type: ignore[arg-type]


def test_few_samples_of_noise_do_no_harm() -> None:
    """What is lost by chance is not learnt by heart: one batch, of few positions, against many columns."""
    graph, network = Graph(networks.mlp()), Network()

    def noisy(seeds: range) -> Step:
        feeds = [networks.feeds(graph.model, 8, seed=seed) for seed in seeds]
        placement = Placement("x86", (graph.layers[1].input,), nodes=frozenset({graph.layers[1].name}))
        walk = Walk(graph, placement, {graph.layers[1].input: Affine(0.2, 128, 8, False)}, feeds)
        return list(islice(walk.steps(), 2))[-1]

    layer = Settling(graph, noisy(range(1)), network, None, ())
    layer.seen("nothing", corrects=True)
    fresh = noisy(range(10, 40))
    assert not np.array_equal(layer.target, layer.matrix), "rounding has lost something"
    assert lost(fresh, layer.target, False) < 1.05 * lost(fresh, layer.matrix, False)


def test_uses_of_one_weight_are_made_up_for_together() -> None:
    """A later use that lost nothing, with ten times the samples, holds the target near the weights."""
    graph, network = Graph(chain()), Network()
    step = worn(graph, range(4), 1)
    alone = Settling(graph, step, network, None, ())
    alone.seen("nothing", corrects=True)
    record = Record(step.layer, [1, 2])
    for i in range(2):
        x = np.random.default_rng(i).normal(size=(40, 8, 16, 16)).astype(np.float32)
        record.add(i, x, [torch.zeros(40 * 256, 8)])
    shared = Settling(graph, step, network, None, (), [Use(step.layer, None, record)])
    shared.seen("nothing", corrects=True)
    moves = [float(np.abs(each.target - each.matrix).max()) for each in (alone, shared)]
    assert 0 < moves[1] < 0.5 * moves[0]


def test_halves_share_no_passage_and_make_the_whole() -> None:
    graph = Graph(chain())
    layer = graph.layers[1]
    x = [np.random.default_rng(i).normal(size=(2, 8, 4, 4)).astype(np.float32) for i in range(3)]
    gap = [torch.ones(32, 8) * (i + 1) for i in range(3)]
    record = Record(layer, [1, 1, 2])
    for i in range(3):
        record.add(i, x[i], [gap[i]])
    found = record.drifts(False)
    assert found is not None and sorted(half.n for half in found.stats) == [32, 64]
    (whole,) = record.stats(False)
    wanted = Stats.of(torch.cat([rows[0] for each in x if (rows := unfold(layer, each)) is not None]))
    torch.testing.assert_close(whole.moment, wanted.moment, rtol=1e-4, atol=1e-3)
    single = Record(layer, [1])
    single.add(0, x[0], [gap[0]])
    halves = single.drifts(True)
    assert halves is not None and [half.n for half in halves.stats] == [16, 16]
    assert float(halves.lost[0][0].abs().max()) < 1e-3, "a constant is for the bias to make up for"
    single.add(0, x[0])
    assert single.drifts(True) is None


def test_only_what_is_known_by_then_is_a_residual() -> None:
    graph = Graph(networks.residual())
    feeds = [networks.feeds(graph.model, 2)]
    found = {}
    for step in Walk(graph, Placement("x86", ()), {}, feeds).steps():
        found[step.layer.name] = next(iter(step.beside())) is not None
    assert {name for name, told in found.items() if told} == {"conv4"}, "the shortcut's Pad comes after conv10"


def test_inputs_that_overflow_are_left_alone_with_a_note() -> None:
    graph = Graph(chain())
    feeds = [{"x": np.full((2, 3, 16, 16), 1e25, np.float32) * (i + 1)} for i in range(2)]
    steps = Walk(graph, Placement("x86", ()), {}, feeds).steps()
    first = next(steps)
    first.settle(weight=np.asarray(graph.constant(first.layer.weight) * 0.9, np.float32))
    layer = Settling(graph, next(steps), Network(), None, ())
    layer.seen("nothing", corrects=True)
    assert layer.target is layer.matrix
    assert layer._notes == ["no corrected targets: the squares of its inputs overflow float32"]
