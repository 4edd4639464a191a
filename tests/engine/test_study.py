"""A study copy says what it is for; a float model that predicts nothing is said to, wherever it is measured."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from bitwright import library
from bitwright.engine import plan as planning
from bitwright.engine import report
from tests import jobs, tiny

RTN = {"format": "int3", "method": "rtn", "group": 32}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make("llama", tmp_path_factory.mktemp("study") / "llama")


def test_a_study_copy_says_so_in_the_plan_and_at_the_end(llama: Path, tmp_path: Path) -> None:
    plan = jobs.made(llama, tmp_path / "out", layer=RTN, output="float")
    told = "\n".join(planning.lines(plan))
    assert "floats, not 3.500 bits per weight" in told and "stored bits" not in told
    assert "note: a study copy: it shows what the format costs in quality" in told
    certificate = jobs.finish(plan)
    assert certificate["study"] is True
    lines = "\n".join(report.verdict_lines(certificate))
    assert "a study copy: floats, not 3.500 bits per weight" in lines and "stored bits" not in lines
    assert any(note.startswith("a study copy") for note in report.fallbacks(certificate))
    packed = jobs.finish(jobs.made(llama, tmp_path / "packed", layer=RTN | {"format": "int4"}))
    assert packed["study"] is False and "study" not in "\n".join(report.verdict_lines(packed))


@pytest.mark.parametrize("zeros", ["everything", "embedding"])
def test_measure_says_that_a_model_predicts_nothing(zeros: str, llama: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for file in llama.iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    weights = load_file(source / "model.safetensors")
    gone = {n: torch.zeros_like(w) if zeros == "everything" or "embed" in n else w for n, w in weights.items()}
    save_file(gone, source / "model.safetensors", {"format": "pt"})
    text = jobs.text(tmp_path)
    found = library.measure(source, source, str(text), windows=2, length=32, watch=False)
    assert found.baseless and found.summary["baseless"] == found.baseless
    assert str(found).startswith("  The float model itself predicts nothing: perplexity ")


def test_a_network_that_answers_zero_is_no_reference(tmp_path: Path) -> None:
    path, data = jobs.network("mlp", tmp_path)
    recipe = {"data": {"task": "none"}}
    assert library.measure(path, path, str(data), recipe=recipe, watch=False).baseless is None
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        x = onnx.numpy_helper.to_array(tensor)
        if x.dtype.kind == "f":
            tensor.CopyFrom(onnx.numpy_helper.from_array(x * 0, tensor.name))
    onnx.save(model, tmp_path / "zero.onnx")
    found = library.measure(tmp_path / "zero.onnx", tmp_path / "zero.onnx", str(data), recipe=recipe, watch=False)
    assert found.baseless and "is 0 on every sample" in str(found)
