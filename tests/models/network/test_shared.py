"""A weight that several layers share is stored once and solved once, for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bitwright.engine.plan import summary
from bitwright.errors import RecipeError
from bitwright.files.layers import Placement
from bitwright.files.onnx import decode, read
from bitwright.models.network.moments import Record
from bitwright.models.network.session import Session
from bitwright.models.network.settle import Settling
from bitwright.models.network.shared import later_uses, uses
from bitwright.models.network.unfold import outputs_as_rows
from bitwright.models.network.walk import Walk
from bitwright.recipe import Network
from tests import jobs, networks
from tests.networks import Net


def head() -> onnx.ModelProto:
    """One convolution at two places of a pyramid, each time with a bias of its own, as detectors have it."""
    n = Net()
    w = n.weight(8, 8, 3, 3)
    fine = n.add("Relu", n.conv("x", 3, 8))
    coarse = n.add("Relu", n.conv(fine, 8, 8, strides=[2, 2]))
    found = [n.add("Conv", x, w, n.weight(8, scale=1), pads=[1] * 4) for x in (fine, coarse)]
    return n.model(networks.IMAGE, [n.conv(n.add("Relu", x), 8, 4, 1) for x in found])


def planned(folder: Path, **recipe: Any) -> Any:
    source, data = jobs.network(head, folder, samples=16)
    recipe = {"data": {"source": str(data)}, "network": {"entrance": "int8"}, **recipe}
    return jobs.made(source, folder / "out.onnx", **recipe)


def test_its_bytes_are_counted_once(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    sizes = [8 * 27, 8 * 72, 8 * 72, 4 * 8, 4 * 8]
    assert plan.weights == sum(sizes) and len(plan.items) == 6
    scales = 32 * (8 + 8 + 8 + 4 + 4)
    assert plan.stored_bits == pytest.approx((8 * sum(sizes) + scales) / sum(sizes))
    certificate = jobs.finish(plan)
    assert certificate["quantized_weights"] == plan.weights
    assert (tmp_path / "out.onnx").stat().st_size <= summary(plan)["final_bytes"]


@pytest.mark.parametrize("method", ["rtn", "descent", "adaround"])
def test_each_use_has_a_bias_for_the_codes_that_are_written(method: str, tmp_path: Path) -> None:
    """On the calibration samples every output channel of both uses has the mean of the float network."""
    layer: dict[str, Any] = {"method": method, "format": "int4"}
    plan = planned(tmp_path, layer=layer)
    certificate = jobs.finish(plan)
    first, second = (item.name for item in uses(plan.items)[plan.model.graph.layer("conv4").weight])
    notes = {row["name"]: row["notes"] for row in certificate["rows"]}
    assert notes[second] == [f"has the weight of {first}, stored once"]
    assert not notes[first]
    assert next(row["correction"] for row in certificate["rows"] if row["name"] == first).startswith("inputs ")
    graph, out = plan.model.graph, read(tmp_path / "out.onnx")
    assert sum(tensor.name.startswith(f"{graph.layer(first).weight}_q") for tensor in out.graph.initializer) == 1
    assert graph.layer(first).weight in decode(out)
    feeds = [batch.feeds for batch in plan.model.samples[0]]
    for name in (first, second):
        raw = graph.layer(name).raw
        written = onnx.ModelProto()
        written.CopyFrom(out)
        product = next(node.output[0] for node in out.graph.node if node.name == name)
        written.graph.output.append(onnx.ValueInfoProto(name=product))
        means = []
        for model, tensor in ((graph.with_outputs([raw]), raw), (written, product)):
            session = Session(model, optimize=False)
            rows = [outputs_as_rows(graph.layer(name), session.run(batch, [tensor])[tensor]) for batch in feeds]
            means.append(np.concatenate(rows).mean(axis=0))
        spread = np.abs(np.diff(means, axis=0)).max()
        assert spread < 0.02 * np.abs(means[0]).max()


def test_the_moments_of_all_uses_are_pooled(tmp_path: Path) -> None:
    plan, network = planned(tmp_path), Network(bias="none")
    graph, placement = plan.model.graph, Placement("x86", ())
    feeds = [networks.feeds(graph.model, 4, seed=i) for i in range(2)]
    weight = graph.layer("conv4").weight
    later = later_uses(graph, plan.items, placement, {}, feeds, [1, 2], False)
    assert list(later) == [weight] and [use.layer.name for use in later[weight]] == ["conv5"]
    inputs = [graph.layer(name).input for name in ("conv4", "conv5")]
    alone = [Record(graph.layer(name), [1, 2]) for name in ("conv4", "conv5")]
    for i, batch in enumerate(feeds):
        values = Session(graph.with_outputs(inputs), optimize=False).run(batch)
        for moments, name in zip(alone, inputs, strict=True):
            moments.add(i, values[name])
    first, second = (moments.stats(False)[0] for moments in alone)
    for step in Walk(graph, placement, {}, feeds).steps():
        if step.layer.name == "conv4":
            (seen,), why = Settling(graph, step, network, None, (), later[weight]).seen("moments")
            assert why is None and seen.stats is not None
            assert seen.stats.n == first.n + second.n
            assert np.allclose(seen.stats.moment, first.moment + second.moment, rtol=1e-5)


def test_two_ways_to_quantize_one_weight_are_refused(tmp_path: Path) -> None:
    rules = [{"match": "conv5", "format": "int4"}]
    with pytest.raises(RecipeError, match=r"conv5: conv4 and conv5 share the weight .* differently\. Match the weight"):
        planned(tmp_path, rules=rules)


def tied() -> onnx.ModelProto:
    """An autoencoder whose decoder is its encoder's transpose."""
    n = Net()
    w = n.weight(6, 24)
    code = n.add("Relu", n.add("Gemm", "x", w, n.weight(6), transB=1))
    return n.model({"x": ["batch", 24]}, [n.add("Gemm", n.add("Gemm", code, n.weight(6, 6)), w, n.weight(24))])


@pytest.mark.parametrize(("build", "rules"), [(tied, []), (head, [{"match": "conv4", "format": "float"}])])
def test_a_layer_that_stays_float_reads_the_weight_as_it_was(build: Any, rules: Any, tmp_path: Path) -> None:
    source, data = jobs.network(build, tmp_path, samples=16)
    recipe = {"data": {"source": str(data)}, "layer": {"format": "int4"}}
    plan = jobs.made(source, tmp_path / "out.onnx", rules=rules, **recipe)
    graph = plan.model.graph
    (weight,) = {layer.weight for layer in graph.layers if sum(o.weight == layer.weight for o in graph.layers) > 1}
    mine, others = [layer.name for layer in graph.layers if layer.weight == weight and layer.name in plan.floats], 0
    assert len(mine) == 1
    jobs.finish(plan)
    out = read(tmp_path / "out.onnx")
    stored = {tensor.name: tensor for tensor in out.graph.initializer}
    for node in out.graph.node:
        if node.name in mine:
            assert (onnx.numpy_helper.to_array(stored[node.input[1]]) == graph.constant(weight)).all()
            others += 1
    assert others == 1 and (tmp_path / "out.onnx").stat().st_size <= summary(plan)["final_bytes"]


def test_learned_steps_need_one_way_to_read_a_weight(tmp_path: Path) -> None:
    source, data = jobs.network(tied, tmp_path, samples=16)
    with pytest.raises(RecipeError, match=r"gemm3: learned step sizes .* gemm0, which reads it the other way round"):
        jobs.made(source, tmp_path / "out.onnx", data={"source": str(data)}, layer={"method": "lsq"})
