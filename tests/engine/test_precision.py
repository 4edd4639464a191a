"""Unique values and entropy of codes, in every row of plan, certificate and report."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from bitwright import library
from bitwright.core.observe import Affine
from bitwright.engine import plan as planning
from bitwright.engine import report
from bitwright.files.containers.qdq.writer import decode
from bitwright.files.folder import open_checkpoint
from bitwright.files.quantized import QuantizedCheckpoint
from bitwright.models.network.graph import Graph
from bitwright.models.network.session import Session
from tests import jobs, tiny

FIELDS = ("levels", "levels_used", "entropy", "input_levels", "input_levels_used", "input_entropy")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make("llama", tmp_path_factory.mktemp("precision") / "llama")


def bits(x: Any) -> float:
    """The entropy of an array, by definition."""
    share = np.unique(np.asarray(x), return_counts=True)[1] / np.asarray(x).size
    return float(-(share * np.log2(share)).sum())


def test_the_plan_says_which_levels_there_will_be(llama: Path, tmp_path: Path) -> None:
    for layer, levels, inputs in (
        ({"format": "int4", "method": "rtn"}, 16, None),
        ({"format": "int8", "group": "channel", "activations": "int8", "method": "rtn"}, 256, 256),
        ({"format": "fp8", "group": "channel", "activations": "fp8", "method": "rtn"}, 253, 253),
    ):
        plan = jobs.made(llama, tmp_path / "out", layer=layer)
        rows = planning.summary(plan)["quantized"]
        assert {(row["levels"], row["input_levels"]) for row in rows} == {(levels, inputs)}
        assert all(row["stored_bits"] == plan.stored(plan.items[row["name"]]) for row in rows)
        told = f" by rtn: {levels} levels" + (f", {inputs} of inputs" if inputs else "")
        assert any(line.endswith(told) for line in planning.lines(plan))
    for name, levels in (("codebook3", 8), ("ternary", 3), ("nf4", 16), ("fp4", 15)):
        layer = {"format": name, "method": "lloyd" if name == "codebook3" else "rtn"}
        plan = jobs.made(llama, tmp_path / "out", layer=layer, output="float")
        assert {item.format.code.levels for item in plan.items.values()} == {levels}


def test_rows_of_a_language_model_are_the_codes_written(llama: Path, tmp_path: Path) -> None:
    out, text = tmp_path / "out", jobs.text(tmp_path)
    layer = {"format": "int8", "group": "channel", "activations": "int8"}
    certificate = jobs.finish(jobs.made(llama, out, layer=layer, calibration=jobs.words(text)))
    held, sizes, entropies = open_checkpoint(out), [], []
    assert isinstance(held, QuantizedCheckpoint)
    for row in certificate["rows"]:
        codes = held.qtensor(row["name"]).codes
        assert (row["levels"], row["levels_used"]) == (256, len(codes.unique()))
        assert row["entropy"] == pytest.approx(bits(codes))
        assert row["input_levels"] == 256 and 0 < row["input_entropy"] < np.log2(row["input_levels_used"])
        sizes, entropies = [*sizes, codes.numel()], [*entropies, row["entropy"]]
    whole = certificate["precision"]
    assert whole["entropy"] == pytest.approx(np.average(entropies, weights=sizes))
    assert whole["levels"] == 256 and 1 < whole["levels_used"] <= 256
    lines = "\n".join(report.verdict_lines(certificate))
    assert f"entropy {whole['entropy']:.2f} bits per weight; activations " in lines


def test_inputs_without_calibration_are_chosen_as_it_runs(llama: Path, tmp_path: Path) -> None:
    layer = {"format": "fp8", "group": "channel", "activations": "fp8", "method": "rtn"}
    certificate = jobs.finish(jobs.made(llama, tmp_path / "out", layer=layer))
    assert {tuple(row[key] for key in FIELDS[3:]) for row in certificate["rows"]} == {(253, None, None)}
    assert "activations 253, chosen as it runs" in "\n".join(report.verdict_lines(certificate))
    assert "253, chosen as it runs" in report.to_markdown([certificate])


def test_rows_of_a_network_are_its_codes_and_those_of_its_inputs(tmp_path: Path) -> None:
    source, data = jobs.network("residual", tmp_path)
    out = tmp_path / "out.onnx"
    recipe = {"data": {"source": str(data)}, "network": {"equalize": False, "absorb": False, "smooth": 0.0}}
    certificate = library.quantize(source, out, recipe=recipe, watch=False).certificate
    graph, samples = Graph.open(source), dict(np.load(data))
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(out).graph.initializer}
    names = list(certificate["activations"])
    calibrated = {n: x for n, x in samples.items() if n in graph.inputs}
    seen = Session(graph.with_outputs(names)).run(calibrated) | calibrated
    for name, found in certificate["activations"].items():
        codes = Affine(found["scale"], found["zero"]).quantize(seen[name])
        assert found["levels"] == 256
        # Held-out samples are not among those that calibration saw.
        assert found["levels_used"] == pytest.approx(len(np.unique(codes)), abs=25)
        assert found["entropy"] == pytest.approx(bits(codes), abs=0.15)
    for row in certificate["rows"]:
        layer = graph.layer(row["name"])
        codes = stored[f"{layer.weight}_quantized"]
        assert (row["levels"], row["levels_used"]) == (255, len(np.unique(codes)))
        assert row["entropy"] == pytest.approx(bits(codes))
        known = certificate["activations"][layer.input]
        assert [row[key] for key in FIELDS[3:]] == [known[key] for key in FIELDS[:3]]
    assert decode(onnx.load(out))
    assert "13 activation tensors as uint8, 256 levels" in str(library.plan(source, tmp_path / "b.onnx", recipe=recipe))


def test_wasted_levels_are_one_note(llama: Path, tmp_path: Path) -> None:
    """Weights that are ternary already: their codes use 3 levels of 16, and one line says so for all."""
    source = tmp_path / "ternary"
    source.mkdir()
    for file in llama.iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    weights = load_file(source / "model.safetensors")
    coarse = {n: w.sign() * 0.05 if "proj" in n else w for n, w in weights.items()}
    save_file({n: w.to(torch.float32) for n, w in coarse.items()}, source / "model.safetensors", {"format": "pt"})
    certificate = jobs.finish(jobs.made(source, tmp_path / "out", layer={"format": "int4", "method": "rtn"}))
    (line,) = [line for line in report.fallbacks(certificate) if "would hold" in line]
    assert line.startswith("14 matrices, ") and "2 of 16 levels used: 1 bit would hold its codes" in line
    (said,) = [f.detail for f in library.check(tmp_path / "out", watch=False).findings if "would hold" in f.detail]
    assert said == line


def test_certificates_of_earlier_releases_are_read(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    certificate = jobs.finish(jobs.made(llama, out, layer={"format": "int4", "method": "rtn"}))
    older = copy.deepcopy(certificate)
    del older["precision"]
    for row in older["rows"]:
        for field in FIELDS:
            del row[field]
    (out / "certificate.json").write_text(json.dumps(older))
    (out / "README.md").unlink()  # there were no cards that name its hash
    found = library.report(out)
    assert "| not counted | not counted |" in found.markdown and ">not counted<" in found.html
    assert "Levels" not in "\n".join(report.verdict_lines(found.certificates[0]))
    assert library.check(out, watch=False).sound is True
