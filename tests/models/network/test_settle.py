"""One layer on its way into the integer network: what a method is shown of it, its bias, and going on after a stop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bitwright.core.formats import named
from bitwright.core.observe import Affine
from bitwright.methods import registry as methods
from bitwright.methods import rtn
from bitwright.models.model import Item
from bitwright.models.network.graph import Graph
from bitwright.models.network.observe import Observed, observe, quantizers
from bitwright.models.network.placement import place
from bitwright.models.network.settle import Settling, stored_bias
from bitwright.models.network.walk import Walk
from bitwright.recipe import Network
from bitwright.rewrites import Rewrite, chosen
from tests import networks


def walked(graph: Graph, network: Network, batches: int = 2) -> tuple[Walk, dict[str, Affine]]:
    feeds = [networks.feeds(graph.model, 4, seed=i) for i in range(batches)]
    placement, seen = place(graph, network.target), Observed()
    list(observe(graph, [networks.feeds(graph.model, 8)], placement.activations, {}, seen))
    affines = quantizers(placement, seen.values, network)
    return Walk(graph, placement, affines, feeds), affines


def corrections(network: Network) -> Sequence[Rewrite]:
    return [rewrite for rewrite in chosen(network) if rewrite.correct]


def item_of(graph: Graph, name: str, bits: int = 8) -> Item:
    method = methods.get("rtn")
    format = named(f"int{bits}_narrow", group="channel", scale="fp32")
    return Item(graph.layer(name), format, method, method.options())


@pytest.mark.parametrize("kind", ["mobile", "residual"])
def test_a_layer_of_groups_shows_each_its_own_inputs(kind: str) -> None:
    graph, network = Graph(networks.KINDS[kind]()), Network()
    walk, affines = walked(graph, network)
    for step in walk.steps():
        layer = Settling(graph, step, network, affines[step.layer.input], corrections(network))
        seen, why = layer.seen("moments")
        assert why is None and len(seen) == step.layer.groups
        for one in seen:
            assert one.stats is not None and one.stats.n > 0
            assert one.stats.moment.shape == (step.layer.columns,) * 2
        assert layer.seen("nothing")[0][0].stats is None
        why = layer.seen("moments", "tensor")[1]
        assert why == ("groups of other inputs share one scale" if layer.groups > 1 else None)
        samples = layer.seen("samples")[0][0].samples
        assert samples is not None and samples.groups == step.layer.groups
        assert samples.x.shape == (len(samples.target), step.layer.groups * step.layer.columns)
        q = rtn.quantize(layer.matrix, named("int8_narrow", group="channel", scale="fp32"))
        layer.settle(item_of(graph, step.layer.name), 0, None, q)


def test_without_samples_the_reason_is_said() -> None:
    graph, network = Graph(networks.mlp()), Network()
    walk, _ = walked(graph, network, batches=0)
    step = next(walk.steps())
    layer = Settling(graph, step, network, None, corrections(network))
    assert layer.seen("moments")[1] == layer.seen("samples")[1] == "there are no samples"
    assert layer.seen("nothing")[1] is None
    graph = Graph(networks.upsample())
    walk, _ = walked(graph, network)
    reasons = {step.layer.op: Settling(graph, step, network, None, ()).seen("moments")[1] for step in walk.steps()}
    assert reasons == {"Conv": None, "ConvTranspose": "transposed convolution"}


def test_the_mean_comes_back_and_the_bias_is_what_a_kernel_adds() -> None:
    graph, network = Graph(networks.residual()), Network()
    gaps: dict[bool, list[float]] = {True: [], False: []}
    for corrected in (True, False):
        walk, affines = walked(graph, network)
        for step in walk.steps():
            affine = affines[step.layer.input]
            layer = Settling(graph, step, network, affine, corrections(network) if corrected else ())
            q = rtn.quantize(layer.matrix, named("int3_narrow", group="channel", scale="fp32"))
            done = layer.settle(item_of(graph, step.layer.name, 3), 0, None, q)
            assert done.noise > 0 and done.power > 0
            bias = done.extras["bias"]
            assert np.array_equal(bias, stored_bias(bias, done.q, affine.scale)), "a whole number of steps"
            wanted, found = layer.means()
            gaps[corrected].append(float(np.abs(wanted - found).max()))
    assert max(gaps[True]) < max(gaps[False]) / 10


def test_going_on_is_as_if_it_had_not_stopped() -> None:
    """The layers after one that is restored get the inputs that they would have got."""
    network = Network()
    kept: dict[str, tuple[object, object]] = {}
    for stop in (0, 2):
        graph = Graph(networks.residual())
        walk, affines = walked(graph, network)
        for number, step in enumerate(walk.steps()):
            layer = Settling(graph, step, network, affines[step.layer.input], corrections(network))
            inputs = [x_hat.copy() for _, x_hat in step]
            if number < stop:
                q, bias = kept[step.layer.name]
                layer.restore(q, bias)  # type: ignore[arg-type]
                continue
            q = rtn.quantize(layer.matrix, named("int4_narrow", group="channel", scale="fp32"))
            done = layer.settle(item_of(graph, step.layer.name, 4), 0, None, q)
            if stop:
                before_q, before_bias, before_inputs = kept[step.layer.name + "!"]  # type: ignore[misc]
                assert all(np.array_equal(a, b) for a, b in zip(inputs, before_inputs, strict=True))
                assert np.array_equal(done.q.codes, before_q.codes)
                assert np.array_equal(done.extras["bias"], before_bias)
            kept[step.layer.name] = done.q, done.extras["bias"]
            kept[step.layer.name + "!"] = done.q, done.extras["bias"], inputs  # type: ignore[assignment]
