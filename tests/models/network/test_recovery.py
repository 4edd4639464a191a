"""Networks whose weights lie on the lattice of their layers: no rewrite takes them off it; their codes come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bitwright.core.formats import named
from bitwright.events import Row
from bitwright.files.layers import from_matrix, to_matrix
from bitwright.methods import mse
from bitwright.models.model import Plan
from bitwright.models.network.graph import Graph
from bitwright.models.recovery import RECOVERY
from tests import jobs

INT8 = {"format": "int8", "group": "channel"}


def on_lattice(path: Path, but: str | None = None) -> dict[str, np.ndarray]:
    """Round the weights of a network's file, but for one layer's; the codes of each, by layer."""
    graph, codes = Graph.open(path), {}
    model = onnx.load(path)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for layer in graph.layers:
        w = np.asarray(numpy_helper.to_array(stored[layer.weight]), np.float32)
        q = mse.quantize(to_matrix(layer, w), named("int8_narrow", group="channel", scale="fp32"))
        if layer.name != but:
            codes[layer.name] = np.asarray(q.codes)
            made = np.asarray(from_matrix(layer, np.asarray(q.decode())), np.float32)
            stored[layer.weight].CopyFrom(numpy_helper.from_array(made, layer.weight))
    onnx.save(model, path)
    return codes


def made(folder: Path, but: str | None = None, kind: str = "mlp", **recipe: Any) -> tuple[Plan, Any, Any]:
    path, data = jobs.network(kind, folder, labels=True)
    codes = on_lattice(path, but)
    layer = recipe.pop("layer", INT8 | {"method": "descent"})
    plan = jobs.made(path, folder / "out.onnx", layer=layer, data={"source": str(data), "batch": 4}, **recipe)
    return plan, codes, path


@pytest.mark.parametrize("kind", ["mlp", "residual"])
def test_codes_come_back_though_channels_could_be_equalized(kind: str, tmp_path: Path) -> None:
    plan, codes, _ = made(tmp_path, kind=kind)
    certificate = jobs.finish(plan)
    sink: Any = plan.sink
    for row in certificate["rows"]:
        assert row["method"] == RECOVERY.name and row["sqnr"] is None
        assert (sink.weights[plan.items[row["name"]].part.weight].codes == codes[row["name"]]).all()
    count = len(certificate["rows"])
    assert (
        f"{count} layers already lie on the int8_narrow channel lattice: written without loss" in certificate["notes"]
    )


def test_a_layer_beside_the_lattice_is_solved_by_its_method(tmp_path: Path) -> None:
    path, _ = jobs.network("mlp", tmp_path)
    other = Graph.open(path).layers[1].name
    plan, codes, _ = made(tmp_path, other)
    rows = {row["name"]: row["method"] for row in jobs.finish(plan)["rows"]}
    assert rows == dict.fromkeys(codes, RECOVERY.name) | {other: "descent"}


@pytest.mark.slow
def test_stopped_at_a_layer_it_goes_on(tmp_path: Path) -> None:
    path, _ = jobs.network("mlp", tmp_path)
    other = Graph.open(path).layers[1].name
    plan, _, path = made(tmp_path, other, max_drop=50.0)
    certificate = jobs.finish(plan)
    whole = plan.out.read_bytes()
    recipe = plan.recipe.model_dump(mode="python", exclude_unset=True)
    for count in (1, 2):
        again = jobs.made(path, tmp_path / f"again{count}.onnx", **recipe)
        rows: list[str] = []

        def wanted(event: object, rows: list[str] = rows, count: int = count) -> bool:
            rows += [event.name] if isinstance(event, Row) else []
            return len(rows) == count

        jobs.stop_after(again, wanted)
        again = jobs.made(path, again.out, **recipe)
        notes = jobs.finish(again)["notes"]
        assert again.out.read_bytes() == whole and notes == certificate["notes"]


@pytest.mark.slow
def test_training_trains_them_all(tmp_path: Path) -> None:
    plan, _, _ = made(tmp_path, layer=INT8 | {"method": "lsq"})
    assert {row["method"] for row in jobs.finish(plan)["rows"]} == {"lsq"}
