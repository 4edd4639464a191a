"""From an ONNX file to a certified integer one, on every kind of tiny network, through ONNX Runtime itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bitwright.engine.integer.calibrate import Seen, observe
from bitwright.engine.integer.plan import Plan, make
from bitwright.engine.integer.rewrite import absorb_axes, absorb_biases
from bitwright.engine.integer.run import run

from bitwright.engine.report import certificate_path
from bitwright.errors import DataError, RecipeError
from bitwright.events import Finished, Row
from bitwright.models.network.graph import Graph
from bitwright.models.network.session import Session
from bitwright.recipe import Recipe
from tests import networks

LAYER = {"format": "int8", "group": "channel", "method": "mse"}


def source(kind: str, folder: Path, samples: int = 24, labels: bool = False) -> tuple[Path, Path]:
    """A tiny network's file, and samples for it as .npz."""
    model = networks.KINDS[kind]()
    path = folder / f"{kind}.onnx"
    onnx.save(model, path)
    graph = Graph.open(path)
    rng = np.random.default_rng(3)
    arrays = {}
    for name, (dtype, shape) in graph.inputs.items():
        size = (samples, *(8 if n is None else n for n in shape[1:]))
        arrays[name] = rng.normal(size=size).astype(dtype) if dtype == "float32" else rng.integers(0, 8, size, dtype)
    answer = next(iter(Session(path).run(arrays).values())) if labels else None
    if answer is not None:
        arrays["labels"] = answer.reshape(samples, -1).argmax(axis=1)
    np.savez(folder / "samples.npz", **arrays)
    return path, folder / "samples.npz"


def quantized(
    kind: str, folder: Path, layer: dict[str, Any] | None = None, labels: bool = False, **network: Any
) -> tuple[Plan, Any]:
    """The finished plan and certificate of a job on a tiny network."""
    path, data = source(kind, folder, labels=labels)
    recipe = Recipe.model_validate(
        {"layer": layer or LAYER, "network": network, "data": {"source": str(data), "batch": 4}}
    )
    plan = make(path, folder / "out.onnx", recipe)
    events = list(run(plan))
    assert isinstance(events[-1], Finished)
    assert len([e for e in events if isinstance(e, Row)]) >= len(plan.items)
    return plan, events[-1].certificate


@pytest.mark.parametrize("kind", sorted(networks.KINDS))
def test_every_kind_becomes_integer_and_answers_alike(kind: str, tmp_path: Path) -> None:
    plan, certificate = quantized(kind, tmp_path)
    onnx.checker.check_model(str(plan.out), full_check=True)
    rows = certificate["rows"]
    assert {row["name"] for row in rows} == set(plan.items)
    assert all(row["sqnr"] is None or row["sqnr"] > 30 for row in rows)  # None: exact
    assert json.loads(certificate_path(plan.out).read_text()) == certificate
    assert min(certificate["verdict"]["sqnr_db"].values()) > 15
    float_share = set(plan.placement().floats)
    assert set(certificate["float_nodes"]) == float_share
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [f"{kind}.onnx", "samples.npz", "out.onnx", "out.certificate.json"]
    )


@pytest.mark.parametrize("method", ["rtn", "gptq", "descent", "adaround"])
@pytest.mark.parametrize("kind", ["residual", "mobile", "mlp"])
def test_every_method_on_four_bits(kind: str, method: str, tmp_path: Path) -> None:
    _, certificate = quantized(kind, tmp_path, {"format": "int4", "group": "channel", "method": method})
    assert {row["method"] for row in certificate["rows"]} == {method}
    assert {row["format"] for row in certificate["rows"]} == {"int4_narrow channel"}


def test_learning_from_inputs_beats_rounding(tmp_path: Path) -> None:
    errors = {}
    for method in ("rtn", "descent", "adaround"):
        folder = tmp_path / method
        folder.mkdir()
        _, certificate = quantized("residual", folder, {"format": "int4", "group": "channel", "method": method})
        errors[method] = sum(row["output_error"] for row in certificate["rows"])
    assert errors["descent"] < 0.8 * errors["rtn"]
    assert errors["adaround"] < 0.8 * errors["rtn"]


def test_bias_correction_restores_the_mean(tmp_path: Path) -> None:
    gaps = {}
    for bias in ("none", "empirical"):
        folder = tmp_path / bias
        folder.mkdir()
        plan, _ = quantized("dense", folder, {"format": "int3", "group": "channel", "method": "rtn"}, bias=bias)
        assert plan.samples is not None
        feeds = [batch.feeds for batch in plan.samples[0]]
        means = [
            np.mean([next(iter(session.run(f).values())).mean(axis=(0, *range(2, 2))) for f in feeds], axis=0)
            for session in (Session(plan.source), Session(plan.out))
        ]
        gaps[bias] = float(np.abs(means[0] - means[1]).mean())
    assert gaps["empirical"] < gaps["none"] / 2


def test_layers_named_float_stay_float(tmp_path: Path) -> None:
    path, data = source("residual", tmp_path)
    name = Graph.open(path).layers[0].name
    raw = {"layer": LAYER, "rules": [{"match": name, "format": "float"}], "data": {"source": str(data), "batch": 4}}
    plan = make(path, tmp_path / "out.onnx", Recipe.model_validate(raw))
    certificate = next(e for e in run(plan) if isinstance(e, Finished)).certificate
    assert certificate["float_nodes"][name] == "kept float on request"
    assert name not in {*plan.items}


def test_a_drop_that_is_too_large_keeps_layers_float(tmp_path: Path) -> None:
    # Two bits ruin the network: with a drop of 0 points allowed, layers come back until the best class agrees.
    _, certificate = quantized(
        "residual", tmp_path, {"format": "int2", "group": "channel", "method": "rtn"}, labels=True, max_drop=0.0
    )
    assert certificate["kept_float"]


def test_weights_only_as_matmulnbits(tmp_path: Path) -> None:
    plan, certificate = quantized(
        "transformer", tmp_path, {"format": "int4", "group": 16, "method": "descent"}, activations="none"
    )
    ops = {node.op_type for node in onnx.load(plan.out).graph.node}
    assert "MatMulNBits" in ops
    assert certificate["activations"] == {}


def test_the_same_job_gives_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for i in range(2):
        folder = tmp_path / str(i)
        folder.mkdir()
        plan, _ = quantized("mobile", folder, {"format": "int4", "group": "channel", "method": "adaround"})
        found.append(plan.out.read_bytes())
    assert found[0] == found[1]


def test_bad_input_leaves_nothing_behind(tmp_path: Path) -> None:
    path, data = source("residual", tmp_path)
    arrays = dict(np.load(data))
    first = next(iter(arrays))
    arrays[first][3, 0] = np.nan
    np.savez(data, **arrays)
    raw: dict[str, Any] = {"layer": LAYER, "data": {"source": str(data), "batch": 4}}
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(DataError, match="is nan"):
        list(run(make(path, tmp_path / "out.onnx", Recipe.model_validate(raw))))
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    with pytest.raises(RecipeError, match="matches no layer"):
        make(path, tmp_path / "out.onnx", Recipe.model_validate({**raw, "rules": [{"match": "nothing*"}]}))
    with pytest.raises(RecipeError, match="is a file"):
        make(path, tmp_path / "folder", Recipe.model_validate(raw))
    with pytest.raises(RecipeError, match="do not run in integers"):
        make(path, tmp_path / "out.onnx", Recipe.model_validate({**raw, "layer": LAYER | {"group": 16}}))


def test_analytic_correction_needs_batch_norm_and_uses_it(tmp_path: Path) -> None:
    rows: dict[str, list[Any]] = {}
    for bias in ("none", "analytic"):
        folder = tmp_path / bias
        folder.mkdir()
        layer = {"format": "int3", "group": "channel", "method": "rtn"}
        rows[bias] = quantized("conv_bn_relu", folder, layer, bias=bias)[1]["rows"]
    untouched = [row["notes"] for row in rows["analytic"]]
    assert any("no batch norm" in " ".join(notes) for notes in untouched)


def test_absorbing_biases_keeps_the_function(tmp_path: Path) -> None:
    model = networks.KINDS["mlp"]()
    path = tmp_path / "mlp.onnx"
    onnx.save(model, path)
    graph = Graph.open(path)
    first = graph.layers[0]
    graph.set_bias(first, graph.bias(first) + 50)  # far above zero: the ReLU never cuts
    feeds = networks.feeds(graph.model, 16)
    before = Session(graph.model).run(feeds)
    seen = Seen()
    list(observe(graph, [feeds], [], absorb_axes(graph), seen))
    notes = absorb_biases(graph, seen.channels)
    assert notes and float(graph.bias(graph.layer(first.name)).max()) < 50
    for name, value in Session(graph.model).run(feeds).items():
        np.testing.assert_allclose(value, before[name], rtol=1e-3, atol=1e-2)


def test_learned_steps_train_the_network(tmp_path: Path) -> None:
    layer = {"format": "int4", "group": "channel", "method": "lsq"}
    plan, certificate = quantized("dense", tmp_path, layer, training={"epochs": 2})
    assert {row["method"] for row in certificate["rows"]} == {"lsq"}
    assert certificate["simulation"]
    onnx.checker.check_model(str(plan.out), full_check=True)
