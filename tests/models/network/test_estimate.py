"""What a plan says a network costs, and which layers at its entrance are not worth rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.engine.plan import lines, summary
from bitwright.models.network.estimate import BASE, ENTRANCE, entrance, positions, share
from bitwright.models.network.graph import Graph
from bitwright.models.network.placement import place
from tests import jobs, networks


def test_how_often_a_matrix_is_used() -> None:
    graph = Graph(networks.conv_bn_relu())
    # [.., 8, 16, 16], then strides of 2, then one vector a sample.
    assert [positions(graph, layer) for layer in graph.layers] == [256, 64, 1]


def test_the_entrance_is_what_reads_the_inputs_and_does_little() -> None:
    graph = Graph(networks.conv_bn_relu())
    work = [positions(graph, layer) * layer.rows * layer.columns for layer in graph.layers]
    assert work[0] > ENTRANCE * sum(work) and entrance(graph, []) == []

    def narrow() -> Any:
        n = networks.Net()
        x = n.add("Relu", n.conv("x", 3, 2))
        x = n.add("Relu", n.conv(x, 2, 32))
        x = n.add("Relu", n.conv(x, 32, 32))
        x = n.add("Flatten", n.add("GlobalAveragePool", x))
        return n.model(networks.IMAGE, [n.add("Gemm", x, n.weight(10, 32), n.weight(10), transB=1)])

    graph = Graph(narrow())
    first = graph.layers[0].name
    assert entrance(graph, []) == [first]
    assert entrance(graph, [first]) == []


def test_a_plan_says_which_share_runs_in_integers(tmp_path: Path) -> None:
    """Of two convolutions and a transposed one, which no integer kernel takes."""
    n = networks.Net()
    x = n.add("ConvTranspose", n.conv(n.conv("x", 3, 8), 8, 8), n.weight(8, 8, 1, 1))
    source = tmp_path / "net.onnx"
    source.write_bytes(n.model(networks.IMAGE, [n.conv(x, 8, 8)]).SerializeToString())
    np.savez(tmp_path / "data.npz", x=np.ones((8, 3, 16, 16), np.float32))
    recipe = {"layer": {"method": "rtn"}, "data": {"source": str(tmp_path / "data.npz")}}
    plan = jobs.made(source, tmp_path / "out.onnx", network={"entrance": "int8"}, **recipe)
    work = [9 * 3 * 8, 9 * 8 * 8, 8 * 8, 9 * 8 * 8]
    share = 1 - work[2] / sum(work)
    assert summary(plan)["integer_share"] == pytest.approx(share)
    assert f"{share:.0%} of the multiply-accumulates run in integers" in "\n".join(lines(plan))


def test_recurrent_layers_and_products_of_activations_count_as_they_are_computed() -> None:
    recurrent, transformer = (Graph(networks.KINDS[kind]()) for kind in ("recurrent", "transformer"))
    assert 0 < share(recurrent, place(recurrent, dynamic=False)) < 0.9
    assert share(recurrent, place(recurrent)) == 1
    assert share(transformer, place(transformer)) < 1 == share(transformer, place(transformer, attention=True))


@pytest.mark.parametrize("kind", ["residual", "tokens"])
def test_more_samples_and_dearer_methods_cost_more(kind: str, tmp_path: Path) -> None:
    source, data = jobs.network(kind, tmp_path, samples=64)
    found = []
    for samples, method in ((8, "rtn"), (32, "rtn")):
        layer = {"format": "int8", "method": method}
        plan = jobs.made(source, tmp_path / "out.onnx", layer=layer, data={"source": str(data), "samples": samples})
        found.append(plan.estimate)
    assert BASE < found[0].needed < found[1].needed
    assert all(estimate.seconds > 0 for estimate in found)
    source = jobs.network("transformer", tmp_path)[0]
    layer = {"method": "rtn", "format": "int4", "group": 16}
    without = jobs.made(source, tmp_path / "out.onnx", layer=layer, network={"activations": "none"})
    assert without.estimate.needed > BASE and without.estimate.seconds > 0
