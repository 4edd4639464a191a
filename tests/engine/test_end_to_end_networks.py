"""From an ONNX file to a certified integer one, on every kind of tiny network, through ONNX Runtime itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bitwright.engine.report import certificate_path
from bitwright.engine.run import run
from bitwright.errors import DataError, RecipeError
from bitwright.events import Finished, Row
from bitwright.models.model import Plan
from bitwright.models.network.graph import Graph
from bitwright.models.network.model import NetworkModel
from bitwright.models.network.session import Session
from tests import jobs, networks

LAYER = {"format": "int8", "group": "channel", "method": "mse"}


def quantized(
    kind: str, folder: Path, layer: dict[str, Any] | None = None, labels: bool = False, max_drop: float | None = None,
    effort: str = "default", **network: Any,
) -> tuple[Plan, Any]:  # fmt: skip
    """The finished plan and certificate of a job on a tiny network."""
    path, data = jobs.network(kind, folder, labels=labels)
    samples = {"source": str(data), "batch": 4}
    given = {"layer": layer or LAYER, "network": network, "data": samples, "max_drop": max_drop, "effort": effort}
    plan = jobs.made(path, folder / "out.onnx", **given)
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
    assert certificate["kind"] == "network" and certificate["container"] == "qdq"
    assert certificate["kept_float"] == plan.floats
    assert isinstance(plan.model, NetworkModel)
    assert certificate["float_nodes"] == dict(plan.model.placement(plan).floats)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [f"{kind}.onnx", "samples.npz", "out.onnx", "out.certificate.json", "out.README.md"]
    )


@pytest.mark.parametrize("method", ["rtn", "gptq", "descent", "adaround"])
@pytest.mark.parametrize("kind", ["residual", "mobile", "mlp"])
def test_every_method_on_four_bits(kind: str, method: str, tmp_path: Path) -> None:
    _, certificate = quantized(kind, tmp_path, {"format": "int4", "group": "channel", "method": method})
    assert {row["method"] for row in certificate["rows"]} == {method}
    assert not any("instead of" in note for row in certificate["rows"] for note in row["notes"])
    assert {row["format"] for row in certificate["rows"]} == {"int4_narrow channel"}


def test_one_scale_for_a_convolution_of_groups(tmp_path: Path) -> None:
    """Groups that see other inputs cannot be solved one by one where they share a scale."""
    plan, certificate = quantized("mobile", tmp_path, {"format": "int8", "group": "tensor", "method": "descent"})
    grouped = {name for name, item in plan.items.items() if item.part.groups > 1}
    assert grouped and {row["name"] for row in certificate["rows"] if row["method"] == "mse"} == grouped
    for row in certificate["rows"]:
        said = "groups of other inputs share one scale: mse instead of descent" in row["notes"]
        assert said == (row["name"] in grouped) and row["format"] == "int8_narrow tensor"


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
        assert isinstance(plan.model, NetworkModel) and plan.model.samples is not None
        feeds = [batch.feeds for batch in plan.model.samples[0]]
        means = [
            np.mean([next(iter(session.run(f).values())).mean(axis=(0, *range(2, 2))) for f in feeds], axis=0)
            for session in (Session(plan.source), Session(plan.out))
        ]
        gaps[bias] = float(np.abs(means[0] - means[1]).mean())
    assert gaps["empirical"] < gaps["none"] / 2


def test_layers_named_float_stay_float(tmp_path: Path) -> None:
    path, data = jobs.network("residual", tmp_path)
    name = Graph.open(path).layers[0].name
    raw = {"layer": LAYER, "rules": [{"match": name, "format": "float"}], "data": {"source": str(data), "batch": 4}}
    plan = jobs.made(path, tmp_path / "out.onnx", **raw)
    certificate = jobs.finish(plan)
    assert certificate["float_nodes"][name] == certificate["kept_float"][name] == "kept float on request"
    assert name not in {*plan.items}
    stored = {tensor.name: tensor for tensor in onnx.load(plan.out).graph.initializer}
    weight = Graph.open(path).layers[0].weight
    assert stored[weight].data_type == onnx.TensorProto.FLOAT


def test_a_drop_that_is_too_large_keeps_layers_float(tmp_path: Path) -> None:
    # Two bits ruin the network: with a drop of 0 points allowed, layers come back until the best class agrees.
    _, certificate = quantized(
        "residual", tmp_path, {"format": "int2", "group": "channel", "method": "rtn"}, labels=True, max_drop=0.0,
        effort="fast",
    )  # fmt: skip
    kept, rows = certificate["kept_float"], {row["name"] for row in certificate["rows"]}
    assert kept and rows and not rows & set(kept)
    assert all("so sensitive" in why for why in kept.values() if "entrance" not in why)
    assert any("drops by" in note for note in certificate["notes"])


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


def test_bad_samples_leave_nothing_in_the_way(tmp_path: Path) -> None:
    path, data = jobs.network("residual", tmp_path)
    good = dict(np.load(data))
    raw = {"layer": LAYER, "data": {"source": str(data), "batch": 4, "samples": 12, "order": "given"}}
    before = sorted(p.name for p in tmp_path.iterdir())
    for row in (3, 20):  # one that calibrates, when nothing is finished; one that judges, when all layers are
        bad = {name: array.copy() for name, array in good.items()}
        bad["x"][row, 0] = np.nan
        np.savez(data, **bad)
        with pytest.raises(DataError, match="is nan"):
            list(run(jobs.made(path, tmp_path / "out.onnx", **raw)))
        assert sorted(p.name for p in tmp_path.iterdir()) == before
    np.savez(data, **good)
    assert isinstance(list(run(jobs.made(path, tmp_path / "out.onnx", **raw)))[-1], Finished)


def test_bad_input_leaves_nothing_behind(tmp_path: Path) -> None:
    path, data = jobs.network("residual", tmp_path)
    raw: dict[str, Any] = {"layer": LAYER, "data": {"source": str(data), "batch": 4}}
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(RecipeError, match="matches no layer"):
        jobs.made(path, tmp_path / "out.onnx", **raw, rules=[{"match": "nothing*"}])
    with pytest.raises(RecipeError, match="is a file"):
        jobs.made(path, tmp_path / "folder", **raw)
    with pytest.raises(RecipeError, match="do not run in integers"):
        jobs.made(path, tmp_path / "out.onnx", **raw | {"layer": LAYER | {"group": 16}})
    arrays = dict(np.load(data))
    arrays["x"][:, 0] = np.nan
    np.savez(data, **arrays)
    with pytest.raises(DataError, match="is nan"):
        list(run(jobs.made(path, tmp_path / "out.onnx", **raw)))
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_analytic_correction_needs_batch_norm_and_uses_it(tmp_path: Path) -> None:
    rows: dict[str, list[Any]] = {}
    for bias in ("none", "analytic"):
        folder = tmp_path / bias
        folder.mkdir()
        layer = {"format": "int3", "group": "channel", "method": "rtn"}
        rows[bias] = quantized("conv_bn_relu", folder, layer, bias=bias)[1]["rows"]
    untouched = [row["notes"] for row in rows["analytic"]]
    assert any("no batch norm" in " ".join(notes) for notes in untouched)


def test_learned_steps_train_the_network(tmp_path: Path) -> None:
    layer = {"format": "int4", "group": "channel", "method": "lsq", "options": {"epochs": 2}}
    plan, certificate = quantized("dense", tmp_path, layer)
    assert {row["method"] for row in certificate["rows"]} == {"lsq"}
    edges = {certificate["rows"][0]["name"], certificate["rows"][-1]["name"]}
    for row in certificate["rows"]:  # the first and the last layer keep 8 bits: nothing claims less
        assert row["format"] == ("int8_narrow channel" if row["name"] in edges else "int4 channel")
    assert certificate["simulation"]
    onnx.checker.check_model(str(plan.out), full_check=True)
