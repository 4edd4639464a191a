"""Models whose weights lie on a quantization lattice get the codes that they were decoded from, whatever the method."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file

from bitwright.engine import plan as planning
from bitwright.errors import TensorError
from bitwright.events import Row
from bitwright.models.model import Plan
from bitwright.models.recovery import RECOVERY
from tests import jobs, tiny
from tests.files.containers.gguf import models

INT4 = {"format": "int4", "group": 32}
FORMATS: dict[str, dict[str, Any]] = {
    "int4": INT4,
    "int4 asym": INT4 | {"symmetric": False},
    "int8 channel": {"format": "int8", "group": "channel"},
    "fp8": {"format": "fp8"},
}
NOTE = "14 matrices already lie on the {} lattice: written without loss"
SPOILED = "model.layers.0.mlp.up_proj.weight"


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jobs.text(tmp_path_factory.mktemp("text"))


def decoded(folder: Path, dtype: torch.dtype, hidden: int = 64, **layer: Any) -> Path:
    """The floats of a quantized model: a study copy, which is stored as its source is."""
    sizes = {"hidden_size": hidden, "head_dim": hidden // 4, "intermediate_size": 256}
    source = tiny.make("llama", folder / "float", dtype=dtype, **sizes)
    plan = jobs.made(source, folder / "decoded", output="float", layer={"method": "mse", **layer})
    jobs.finish(plan)
    return plan.out


def by_method(rows: list[dict[str, Any]]) -> dict[str, set[str]]:
    """The names of matrices by what solved them."""
    return {method: {row["name"] for row in rows if row["method"] == method} for method in {r["method"] for r in rows}}


def spoil(folder: Path, name: str = SPOILED, row: int = -1) -> None:
    """Put one weight beside the lattice."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    column = int(tensors[name][row].nonzero()[0, 0])
    tensors[name][row, column] *= 1.37
    save_file(tensors, path, {"format": "pt"})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def stored(plan: Plan) -> dict[str, torch.Tensor]:
    """What each matrix of an output decodes to."""
    sink: Any = plan.sink
    written = sink.open(plan.out)
    return {name: written.read(f"{sink.module(item)}.weight") for name, item in plan.items.items()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_decoded_weights_get_their_codes_back(name: str, dtype: torch.dtype, text: Path, tmp_path: Path) -> None:
    source = decoded(tmp_path, dtype, **FORMATS[name])
    method = "descent" if name.startswith("int") else "rtn"
    plan = jobs.made(source, tmp_path / "out", layer={"method": method, **FORMATS[name]}, calibration=jobs.words(text))
    words = next(iter(plan.items.values())).words
    told = f"14 matrices begin on the {words} lattice: without loss where all rows lie on it, whatever the method"
    assert f"  {told}" in planning.lines(plan)
    assert all(item["recoverable"] for item in planning.summary(plan)["quantized"])
    certificate = jobs.finish(plan)
    rows, notes = certificate["rows"], certificate["notes"]
    assert NOTE.format(rows[0]["format"]) in notes
    assert by_method(rows) == {RECOVERY.name: set(plan.items)}
    before, after = weights(source), stored(plan)
    for row in rows:
        rounded = torch.float16 if dtype == torch.float32 else dtype  # in which runtimes multiply by the scales
        assert (after[row["name"]].to(rounded) == before[row["name"]].to(rounded)).all()
        lost = [note for note in row["notes"] if "levels used" not in note]
        assert (row["sqnr"] is None) == (lost == []) and (row["sqnr"] is None or row["sqnr"] > 45)
    if dtype == torch.float32:
        assert certificate["verdict"]["kl"] < 1e-5 and all(row["sqnr"] is None for row in rows)


@pytest.mark.parametrize("kind", ["q4_0", "q8_0", "q4_1"])
def test_a_decoded_gguf_file_becomes_the_same_file(kind: str, tmp_path: Path) -> None:
    """By way of float32 all is the same to the byte; by way of the file itself, too."""
    source = models.make("llama", tmp_path / "float")
    first = jobs.made(source, tmp_path / "first.gguf", type=kind, layer={"method": "mse"})
    jobs.finish(first)
    again = jobs.made(first.out, tmp_path / "again.gguf", type=kind, layer={"method": "rtn"})
    rows = jobs.finish(again)["rows"]
    assert by_method(rows) == {RECOVERY.name: set(again.items)} and all(row["sqnr"] is None for row in rows)
    one, two = ({t.name: t for t in GGUFReader(p.out).tensors} for p in (first, again))
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name].data, two[name].data) for name in one)


@pytest.mark.parametrize("effort", ["fast", "default"])
def test_others_are_solved_as_ever(effort: str, text: Path, tmp_path: Path) -> None:
    """One weight beside the lattice, in the last row: its matrix is solved by its method, and that is said."""
    source = decoded(tmp_path, torch.float32, **INT4)
    spoil(source)
    recipe = {"layer": {"method": "descent", **INT4}, "effort": effort, "calibration": jobs.words(text)}
    plan = jobs.made(source, tmp_path / "out", **recipe)
    assert SPOILED in plan.recoverable  # which looks at the first rows
    certificate = jobs.finish(plan)
    rows = by_method(certificate["rows"])
    assert rows == {RECOVERY.name: set(plan.items) - {SPOILED}, "descent": {SPOILED}}
    row = next(row for row in certificate["rows"] if row["name"] == SPOILED)
    assert "begins on the int4 g32 lattice, and does not lie on it" in row["notes"] and row["output_error"] is not None
    after, before = stored(plan), weights(source)
    assert all((after[name] == before[name].half()).all() for name in rows[RECOVERY.name])
    assert (after[SPOILED] != before[SPOILED].half()).any()


def test_stopped_at_any_matrix_it_goes_on(text: Path, tmp_path: Path) -> None:
    source = decoded(tmp_path, torch.bfloat16, **INT4)
    spoil(source)
    spoil(source, "model.layers.1.self_attn.k_proj.weight", 0)
    recipe = {"layer": {"method": "descent", **INT4}, "calibration": jobs.words(text)}
    whole = jobs.made(source, tmp_path / "whole", **recipe)
    certificate = jobs.finish(whole)
    assert len(by_method(certificate["rows"])["descent"]) == 2
    for count in (5, 13):  # with only some recovered, and between the two that are solved
        plan = jobs.made(source, tmp_path / f"stopped{count}", **recipe)
        seen: list[str] = []

        def wanted(event: object, seen: list[str] = seen, count: int = count) -> bool:
            seen += [event.name] if isinstance(event, Row) else []
            return len(seen) == count

        jobs.stop_after(plan, wanted)
        plan = jobs.made(source, plan.out, **recipe)
        again = jobs.finish(plan)
        assert (plan.out / "model.safetensors").read_bytes() == (whole.out / "model.safetensors").read_bytes()
        assert by_method(again["rows"]) == by_method(certificate["rows"]) and again["notes"] == certificate["notes"]


@pytest.mark.parametrize("method", ["blockwise", "lsq"])
def test_what_is_learned_together_leaves_them_out(method: str, text: Path, tmp_path: Path) -> None:
    source = decoded(tmp_path, torch.float32, **INT4)
    spoil(source)
    plan = jobs.made(source, tmp_path / "out", layer={"method": method, **INT4}, calibration=jobs.words(text))
    rows = by_method(jobs.finish(plan)["rows"])
    assert rows == {RECOVERY.name: set(plan.items) - {SPOILED}, method: {SPOILED}}


@pytest.mark.parametrize("asked", [{"kv_cache": "fp8"}, {"max_drop": 5.0}], ids=["keys and values", "largest drop"])
def test_nothing_else_of_a_job_is_left_out(asked: dict[str, Any], text: Path, tmp_path: Path) -> None:
    source = decoded(tmp_path, torch.bfloat16, **INT4)
    plan = jobs.made(source, tmp_path / "out", layer=INT4, calibration=jobs.words(text), **asked)
    certificate = jobs.finish(plan)
    assert by_method(certificate["rows"]) == {RECOVERY.name: set(plan.items)}
    assert certificate["notes"].count(NOTE.format("int4 g32")) == 1
    assert (certificate["verdict"]["kl"] > 1e-4) == ("kv_cache" in asked)


@pytest.mark.parametrize("format", ["q4_k", "nf4"])
def test_a_study_copy_of_decoded_weights_is_the_same(format: str, tmp_path: Path) -> None:
    source = decoded(tmp_path, torch.bfloat16, 256, format=format)
    again = jobs.made(source, tmp_path / "again", output="float", layer={"method": "rtn", "format": format})
    assert {row["method"] for row in jobs.finish(again)["rows"]} == {RECOVERY.name}
    assert (again.out / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


def test_a_quantized_embedding_is_recovered_too(tmp_path: Path) -> None:
    source = tiny.make("qwen2", tmp_path / "float", dtype=torch.float32)
    recipe = {"layer": {"method": "rtn", **INT4}, "embedding": "int8"}
    first = jobs.made(source, tmp_path / "decoded", output="float", **recipe)
    jobs.finish(first)
    plan = jobs.made(first.out, tmp_path / "out", **recipe)
    rows = jobs.finish(plan)["rows"]
    assert by_method(rows) == {RECOVERY.name: set(plan.items)}
    assert {row["name"] for row in rows if row["format"].startswith("int8")} == {"model.embed_tokens.weight"}


def test_other_weights_are_solved_as_ever_and_nothing_is_said(text: Path, tmp_path: Path) -> None:
    source = tiny.make("llama", tmp_path / "float")
    plan = jobs.made(source, tmp_path / "out", layer={"method": "rtn", **INT4}, calibration=jobs.words(text))
    assert not plan.recoverable and not any("lattice" in line for line in planning.lines(plan))
    certificate = jobs.finish(plan)
    assert {row["method"] for row in certificate["rows"]} == {"rtn"}
    assert not any("lattice" in note for note in certificate["notes"])


def test_weights_that_are_not_finite_are_named_as_ever(tmp_path: Path) -> None:
    source = decoded(tmp_path, torch.bfloat16, **INT4)
    shutil.copytree(source, tmp_path / "broken")
    tensors = weights(source)
    tensors[SPOILED][0, 0] = float("nan")
    save_file(tensors, tmp_path / "broken" / "model.safetensors", {"format": "pt"})
    plan = jobs.made(tmp_path / "broken", tmp_path / "out", layer={"method": "rtn", **INT4})
    assert SPOILED not in plan.recoverable
    with pytest.raises(TensorError, match=rf"{SPOILED}: 1 value is not finite, first nan at \[0, 0\]"):
        jobs.finish(plan)
