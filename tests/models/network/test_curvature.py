"""What an error at a layer's outputs costs: by class scores or by squares, group by group, the same in every run."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from bitwright.core.formats import named
from bitwright.engine.plan import lines
from bitwright.events import Note
from bitwright.methods import registry as methods
from bitwright.models.demos import digits
from bitwright.models.effort import EFFORTS, Effort
from bitwright.models.model import Item
from bitwright.models.network.curvature import Curvature
from bitwright.models.network.estimate import weighing
from bitwright.models.network.graph import Graph
from bitwright.models.network.model import NetworkModel
from bitwright.models.network.slopes import scored
from bitwright.words import megabytes
from tests import jobs, networks


def gathered(
    model: onnx.ModelProto, task: str = "none", seed: int = 0
) -> tuple[Graph, list[Item], Curvature, list[str]]:
    graph, method = Graph(model), methods.get("descent")
    format = named("int4_narrow", group="channel", scale="fp32")
    items = [Item(layer, format, method, method.options()) for layer in graph.matrices]
    found = Curvature(graph, items, task, seed)
    feeds = [networks.feeds(graph.model, 4, seed=i) for i in range(3)]
    notes = [event.text for event in found.compute(feeds, networks.feeds(graph.model, 1)) if isinstance(event, Note)]
    return graph, items, found, notes


@pytest.mark.parametrize("given", ["logits", "probabilities"])
def test_slopes_have_the_second_moment_of_the_divergence(given: str) -> None:
    """Over all signs: diag(p) - p p^T for logits, diag(1 / p) for probabilities."""
    x = torch.tensor([[0.3, -1.0, 2.0, 0.1]])
    p = x.softmax(-1)[0]
    wanted = torch.diag(p) - torch.outer(p, p) if given == "logits" else torch.diag(1 / p)
    signs = torch.tensor([*product([-1.0, 1.0], repeat=4)])
    slopes = torch.cat([scored(x if given == "logits" else p[None], v[None]) for v in signs])
    torch.testing.assert_close(slopes.T @ slopes / len(signs), wanted)


def test_scores_at_each_position_and_on_one_pixel_are_read_along_their_classes() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, generator=rng)
    v = torch.ones_like(x)
    torch.testing.assert_close(scored(x, v)[1, 2], scored(x[1, 2][None], v[1, 2][None])[0])
    torch.testing.assert_close(scored(x[0][:, :, None, None], v[0][:, :, None, None])[..., 0, 0], scored(x[0], v[0]))


def narrow() -> onnx.ModelProto:
    """One number from two layers."""
    n = networks.Net()
    x = n.add("Relu", n.add("Gemm", "x", n.weight(6, 5), n.weight(6), transB=1))
    return n.model({"x": ["batch", 5]}, [n.add("Gemm", x, n.weight(1, 6), n.weight(1), transB=1)])


def test_of_one_number_it_is_the_second_moment_of_its_gradient() -> None:
    graph, (first, last), found, notes = gathered(narrow())
    w = [graph.matrix(layer) for layer in graph.layers]
    x = np.concatenate([networks.feeds(graph.model, 4, seed=i)["x"] for i in range(3)])
    g = w[1] * (x @ w[0].T + graph.bias(graph.layers[0]) > 0)
    curvature = found.of(first, 0, 6)
    assert curvature is not None
    np.testing.assert_allclose(curvature, g.T @ g / len(g), rtol=1e-5, atol=1e-7)
    assert found.of(last, 0, 1) is None and notes == [], "a single output has nothing to be weighed against"


def test_outputs_count_in_shares_of_their_power() -> None:
    """An output of a thousand times the size is worth as much as another."""
    n = networks.Net()
    x = n.add("Gemm", "x", n.weight(2, 5), n.weight(2), transB=1)
    index = [n.value([i], np.int64) for i in (0, 1)]
    one, other = (n.add("Gather", x, i, axis=1) for i in index)
    graph, (item,), found, _ = gathered(
        n.model({"x": ["batch", 5]}, [one, n.add("Mul", other, n.value(np.float32(1e3)))])
    )
    y = np.concatenate([networks.feeds(graph.model, 4, seed=i)["x"] for i in range(3)]) @ graph.matrix(item.part).T
    y += graph.bias(item.part)
    curvature = found.of(item, 0, 2)
    assert curvature is not None
    np.testing.assert_allclose(np.diagonal(curvature), 1 / (y**2).mean(axis=0), rtol=1e-4)


def test_each_group_has_its_own_and_depthwise_none() -> None:
    n = networks.Net()
    x = n.conv(n.conv(n.conv("x", 3, 6), 6, 6, groups=6), 6, 4, groups=2)
    _, (full, deep, halves), found, notes = gathered(n.model(networks.IMAGE, [n.add("GlobalAveragePool", x)]))
    both = [found.of(halves, i, i + 2) for i in (0, 2)]
    assert all(g is not None and g.shape == (2, 2) for g in both) and not torch.equal(*both)  # type: ignore[arg-type]
    whole = found.of(full, 0, 6)
    assert whole is not None and whole.shape == (6, 6) and torch.allclose(whole, whole.T)
    assert found.of(deep, 0, 1) is None and notes == []


def twice(op: str) -> onnx.ModelProto:
    """One weight read by two layers, between which an operator stands."""
    n = networks.Net()
    w = n.weight(4, 4)
    x = n.add(op, n.add("MatMul", "x", w))
    return n.model({"x": ["batch", 4]}, [n.add("MatMul", x, w)])


def test_a_weight_that_is_used_twice_counts_both_uses_or_none() -> None:
    _, (first, second), found, notes = gathered(twice("Tanh"))
    assert found.of(first, 0, 4) is found.of(second, 0, 4) is not None and notes == []
    graph, (first, second), found, notes = gathered(twice("Sin"))
    assert found.of(first, 0, 4) is found.of(second, 0, 4) is None
    assert notes == [f"no output curvature for 1 of 2 layers, first {graph.layers[0].name}: no derivative of Sin"]


def test_a_gradient_of_zero_is_said() -> None:
    n = networks.Net()
    x = n.add("Relu", n.add("Gemm", "x", n.weight(4, 5), n.value(np.full(4, -1e3, np.float32)), transB=1))
    graph, items, found, notes = gathered(
        n.model({"x": ["batch", 5]}, [n.add("Gemm", x, n.weight(3, 4), n.weight(3), transB=1)])
    )
    assert found.of(items[0], 0, 4) is None and found.of(items[1], 0, 3) is not None
    assert notes == [f"no output curvature for 1 of 2 layers, first {graph.layers[0].name}: its gradient is zero"]


def test_a_seed_decides_all() -> None:
    def run(seed: int) -> Any:
        _, items, found, _ = gathered(networks.residual(), "classify", seed)
        return [found.of(item, 0, item.rows) for item in items]

    one, same, other = run(0), run(0), run(1)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_outputs_are_weighed_on_the_samples_where_a_method_makes_use_of_that(tmp_path: Path) -> None:
    source, data = jobs.network("residual", tmp_path)

    def effort(**recipe: Any) -> tuple[int, str]:
        plan = jobs.made(source, tmp_path / "out.onnx", data={"source": str(data)}, **recipe)
        return plan.effort.weighing, lines(plan)[-4 - len(plan.notes)].strip()

    told = "errors of earlier layers are made up for"
    assert effort() == (18, f"effort default: {told}, outputs weighed on 18 samples")
    assert effort(effort="best") == (18, f"effort best: {told}, outputs weighed on 18 samples")
    assert effort(effort="fast") == (0, "effort fast: each layer rounded for its own inputs")
    assert effort(layer={"method": "mse"}) == (0, f"effort default: {told}")


def test_what_does_not_fit_is_left_out_by_name(tmp_path: Path) -> None:
    source, data = jobs.network("residual", tmp_path)
    plan = jobs.made(source, tmp_path / "out.onnx", data={"source": str(data)})
    assert isinstance(plan.model, NetworkModel) and plan.model.samples is not None
    needed = weighing(plan, plan.model.graph, plan.model.samples[0])
    assert plan.model.effort(replace(plan, ceiling=needed)) == plan.effort
    found = plan.model.effort(replace(plan, ceiling=needed - 1))
    what = f"all outputs count alike, as weighing them does not fit: that needs {megabytes(needed)} of memory, and the"
    assert found.weighing == 0 and found.corrects and found.notes == (f"{what} limit is {megabytes(needed - 1)}",)


def test_weighed_outputs_bring_the_answers_nearer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digits at 4 bits: less divergence on held-out samples than where all outputs count alike."""
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn (extra: onnx)")
    data = {part: str(digits.write(tmp_path / f"{part}.npz", part)) for part in ("train", "test")}
    found = []
    for samples in (0, 16):
        monkeypatch.setitem(EFFORTS, "default", Effort(True, samples))
        recipe = {"layer": {"format": "int4"}, "data": {"source": data["train"], "heldout": data["test"]}}
        found.append(jobs.finish(jobs.made(digits.MODEL, tmp_path / f"{samples}.onnx", **recipe))["verdict"]["kl"])
    assert found[1] < 0.95 * found[0]
