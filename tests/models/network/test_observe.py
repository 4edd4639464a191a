"""What samples say of tensors: all batches counted, groups that share a scale, values that are not finite."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.errors import TensorError
from bitwright.events import Progress
from bitwright.models.network.graph import Graph
from bitwright.models.network.observe import Observed, observe, quantizers
from bitwright.models.network.placement import place
from bitwright.recipe import Network
from tests import networks


def test_batches_add_up() -> None:
    graph, seen, parts = Graph(networks.residual()), Observed(), Observed()
    names = place(graph).activations
    batches = [networks.feeds(graph.model, 4, seed=i) for i in range(3)]
    events = list(observe(graph, batches, names, {names[1]: 1}, parts))
    assert [e.done for e in events if isinstance(e, Progress)] == [1, 2, 3] and parts.batches == 3
    whole = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    list(observe(graph, [whole], names, {names[1]: 1}, seen))
    found = [quantizers(place(graph), s.values, Network(observer="minmax")) for s in (parts, seen)]
    for name, affine in found[0].items():
        assert affine.scale == pytest.approx(found[1][name].scale, rel=1e-5)
    np.testing.assert_allclose(parts.channels[names[1]].high, seen.channels[names[1]].high, rtol=1e-5)
    np.testing.assert_allclose(parts.channels[names[1]].power, seen.channels[names[1]].power, rtol=1e-4)


@pytest.mark.parametrize("target", ["x86", "arm", "gpu"])
def test_every_tensor_gets_one_and_those_that_move_share_it(target: str) -> None:
    graph, seen = Graph(networks.detector()), Observed()
    placement = place(graph, target)  # type: ignore[arg-type]
    list(observe(graph, [networks.feeds(graph.model)], placement.activations, {}, seen))
    found = quantizers(placement, seen.values, Network(target=target))  # type: ignore[arg-type]
    assert set(found) == set(placement.activations)
    for group in placement.shared:
        assert len({found[name] for name in group}) == 1
    assert {affine.signed for affine in found.values()} == {target != "x86"}
    if target == "gpu":
        assert {affine.zero for affine in found.values()} == {0}


def test_what_is_not_finite_is_named_where_it_begins() -> None:
    graph = Graph(networks.residual())
    names, layer = place(graph).activations, graph.layers[-1]
    graph.set_matrix(layer, graph.matrix(layer) * np.float32(1e38))  # finite, and its products are not
    with pytest.raises(TensorError, match="values of Gemm are NaN or infinite") as caught:
        list(observe(graph, [networks.feeds(graph.model)], [*names, layer.raw], {}, Observed()))
    assert caught.value.where == layer.raw
    graph = Graph(networks.residual())
    feeds = networks.feeds(graph.model)
    feeds["x"][1, 0, 2, 3] = np.nan
    with pytest.raises(TensorError, match=r"values of .* are NaN or infinite"):
        list(observe(graph, [feeds], names, {}, Observed()))
