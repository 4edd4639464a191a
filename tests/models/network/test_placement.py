"""Where integers flow: every float node has its reason, and what is to be kept float is."""

from __future__ import annotations

import pytest

from bitwright.errors import RecipeError
from bitwright.models.network.graph import Graph
from bitwright.models.network.placement import TARGETS, place
from tests import networks


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", networks.KINDS)
def test_every_layer_is_placed_or_has_its_reason(kind: str, target: str) -> None:
    graph = Graph(networks.KINDS[kind]())
    found = place(graph, target)  # type: ignore[arg-type]
    nodes = {node.name for node in graph.model.graph.node}
    assert found.target == target and found.nodes <= nodes and set(found.floats) <= nodes
    assert not found.nodes & set(found.floats) and all(found.floats.values())
    for layer in graph.layers:
        assert (layer.name in found.nodes) != (layer.name in found.floats)
        if layer.name in found.nodes:
            assert layer.input in found.activations
    names = [name for group in found.shared for name in group]
    assert len(names) == len(set(names)) and set(names) <= set(found.activations)
    assert not set(found.activations) & graph.constants
    if target == "gpu":
        assert found.nodes - set(found.fused) <= {layer.name for layer in graph.layers}


def test_what_is_kept_float_is_kept() -> None:
    graph = Graph(networks.residual())
    for layer in graph.layers:
        found = place(graph, keep=[layer.name])
        assert layer.name not in found.nodes and found.floats[layer.name] == "kept float on request"
        assert {other.name for other in graph.layers if other.name != layer.name} <= found.nodes
    everything = place(graph, keep=[layer.name for layer in graph.layers])
    assert not everything.nodes and not everything.activations


def test_mistakes_are_named() -> None:
    graph = Graph(networks.mlp())
    with pytest.raises(RecipeError, match=r"no target is called 'tpu'.*x86, arm, gpu"):
        place(graph, "tpu")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="no node is called 'nothing'"):
        place(graph, keep=["nothing"])


def test_products_of_activations_are_integer_where_asked() -> None:
    graph = Graph(networks.transformer())
    products = {name for name, why in place(graph).floats.items() if "two activations" in why}
    assert len(products) == 2
    assert products <= place(graph, attention=True).nodes
