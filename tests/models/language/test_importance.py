"""Imatrix files from our calibration, and matrices that are solved by theirs."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from typer.testing import CliRunner

import bitwright as bw
from bitwright import machine
from bitwright.cli import app
from bitwright.core.formats import named
from bitwright.core.stats import Stats
from bitwright.engine.run import job_hash
from bitwright.errors import FileError, RecipeError
from bitwright.files.containers.gguf import imatrix
from bitwright.files.containers.gguf.imatrix import Entry, Imatrix
from bitwright.files.folder import load_in_transformers, open_checkpoint
from bitwright.methods import descent
from bitwright.models.language.text import load_tokenizer
from tests import jobs, tiny

FEW = {"windows": 4, "length": 32}
DOWN = "model.layers.1.mlp.down_proj"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, text, and the imatrix of both."""
    base = tmp_path_factory.mktemp("imatrix")
    tiny.make("llama", base / "llama")
    jobs.text(base)
    bw.imatrix(base / "llama", base / "i.gguf", calib=str(base / "some.txt"), **FEW, watch=False)
    return base


def windows(home: Path) -> torch.Tensor:
    """The calibration windows that `quantize` would read."""
    calibration = {"source": str(home / "some.txt"), **FEW}
    plan = jobs.made(home / "llama", home / "x.gguf", type="q8_0", calibration=calibration)
    steps = plan.model.read_data(plan)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            ids: torch.Tensor = end.value.calibration
            return ids


def test_entries_are_the_mean_squares_of_what_transformers_multiplies(home: Path) -> None:
    ids = windows(home)
    seen: dict[str, torch.Tensor] = {}
    model = load_in_transformers(home / "llama").to(machine.calibration_dtype("cpu"))
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda _, x, y, name=name: seen.__setitem__(name, x[0].float()))
    with torch.no_grad():
        model(input_ids=ids)
    found = imatrix.read(home / "i.gguf")
    assert (found.chunks, found.chunk_size) == (4, 32)
    names = {
        "blk.0.attn_q.weight": "model.layers.0.self_attn.q_proj",
        "blk.0.attn_v.weight": "model.layers.0.self_attn.v_proj",
        "blk.1.ffn_down.weight": DOWN,
        "output.weight": "lm_head",
    }
    for name, module_name in names.items():
        wanted = seen[module_name].reshape(-1, seen[module_name].shape[-1]).square().mean(0)
        assert found.entries[name].squares[0] == pytest.approx(wanted.numpy(), rel=0.03, abs=1e-4), name
        assert found.entries[name].counts.tolist() == [ids.numel()]
    assert len(found.entries) == 2 * 7 + 1


def test_each_expert_has_its_own_row(tmp_path: Path) -> None:
    source, text = tiny.make("mixtral", tmp_path / "mixtral"), jobs.text(tmp_path)
    bw.imatrix(source, tmp_path / "i.gguf", calib=str(text), **FEW, watch=False)
    found = imatrix.read(tmp_path / "i.gguf").entries
    for name in ("blk.0.ffn_gate_exps.weight", "blk.1.ffn_down_exps.weight"):
        assert found[name].squares.shape[0] == 4
        assert found[name].counts.sum() == 4 * 32 * 2  # two experts for each token
    assert len({tuple(row) for row in found["blk.0.ffn_gate_exps.weight"].squares.tolist()}) > 1
    plan = jobs.made(source, tmp_path / "o.gguf", type="q8_0", imatrix=str(tmp_path / "i.gguf"))
    rows = [item.part for item in plan.items.values() if item.part.expert == 3 and item.part.block == 1]
    assert rows
    for part in rows:
        name = "blk.1.ffn_down_exps.weight" if part.columns == 128 else "blk.1.ffn_gate_exps.weight"
        assert np.array_equal(plan.model.forms.weighing.of(part).numpy(), found[name].squares[3])


@pytest.mark.skipif(shutil.which("llama-quantize") is None, reason="llama-quantize is not installed")
def test_llama_cpp_reads_it(home: Path, tmp_path: Path) -> None:
    bw.quantize(home / "llama", tmp_path / "a.gguf", type="q8_0", method="rtn", watch=False)
    words = ["llama-quantize", "--allow-requantize", "--imatrix", home / "i.gguf", tmp_path / "a.gguf"]
    done = subprocess.run([*words, tmp_path / "b.gguf", "q4_0", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "loaded 15 importance matrix entries" in done.stdout + done.stderr
    assert "did not find weights for blk" not in done.stdout + done.stderr


def solved(home: Path, out: Path, **more: Any) -> dict[str, Any]:
    plan = jobs.made(home / "llama", out, type="q4_0", imatrix=str(home / "i.gguf"), **more)
    return jobs.finish(plan)


def test_matrices_are_solved_by_an_imatrix(home: Path, tmp_path: Path) -> None:
    certificate = solved(home, tmp_path / "o.gguf")
    given = certificate["imatrix"]
    assert (given["file"], given["entries"], given["chunks"]) == ("i.gguf", 15, 4)
    assert any("columns are weighed by the imatrix i.gguf" in note for note in certificate["notes"])
    methods = {row["name"]: row["method"] for row in certificate["rows"]}
    assert methods.pop("model.embed_tokens.weight") == "mse"  # nothing multiplies it
    assert methods.pop("lm_head.weight") == "mse"  # 6 bits and more are fitted for themselves
    assert set(methods.values()) == {"descent"}
    assert all(row["tokens"] is None for row in certificate["rows"])
    power = torch.from_numpy(imatrix.read(home / "i.gguf").entries["blk.1.ffn_down.weight"].squares[0].copy())
    w = open_checkpoint(home / "llama").read(f"{DOWN}.weight").float()
    q = descent.quantize(w, named("q4_0"), Stats.diagonal(power))
    assert torch.equal(open_checkpoint(tmp_path / "o.gguf").read(f"{DOWN}.weight"), q.decode())
    fields = GGUFReader(tmp_path / "o.gguf").fields
    told = {key: field.contents() for key, field in fields.items() if key.startswith("quantize.")}
    assert told == {
        "quantize.imatrix.file": "i.gguf", "quantize.imatrix.entries_count": 15, "quantize.imatrix.chunks_count": 4
    }  # fmt: skip


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(home: Path, tmp_path: Path) -> None:
    solved(home, tmp_path / "whole.gguf")
    for _ in range(2):
        plan = jobs.made(home / "llama", tmp_path / "o.gguf", type="q4_0", imatrix=str(home / "i.gguf"))
        jobs.stop_after(plan, 12)
    assert plan.partial.exists()
    solved(home, tmp_path / "o.gguf")
    assert (tmp_path / "o.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_unfinished_work_is_left_alone(home: Path, tmp_path: Path) -> None:
    plan = jobs.made(home / "llama", tmp_path / "o.gguf", type="q4_0", layer={"method": "rtn"})
    jobs.stop_after(plan, 6)
    before = sorted(plan.partial.iterdir())
    with pytest.raises(RecipeError, match="unfinished work of a quantization"):
        bw.imatrix(home / "llama", tmp_path / "o.gguf", calib=str(home / "some.txt"), **FEW, watch=False)
    assert before and sorted(plan.partial.iterdir()) == before


def test_the_same_name_with_other_content_is_another_job(home: Path, tmp_path: Path) -> None:
    path, hashes = tmp_path / "i.gguf", set()
    given = imatrix.read(home / "i.gguf")
    for factor in (1, 2):
        entries = {name: replace(entry, squares=entry.squares * factor) for name, entry in given.entries.items()}
        imatrix.write(path, Imatrix(entries, given.chunks))
        plan = jobs.made(home / "llama", tmp_path / "o.gguf", type="q4_0", imatrix=str(path))
        hashes.add(job_hash(plan, None))
    assert len(hashes) == 2


def test_a_matrix_that_it_lacks_is_solved_without_and_named(home: Path, tmp_path: Path) -> None:
    entries = dict(imatrix.read(home / "i.gguf").entries)
    del entries["blk.1.ffn_down.weight"]
    imatrix.write(tmp_path / "i.gguf", Imatrix(entries, 4))
    plan = jobs.made(home / "llama", tmp_path / "o.gguf", type="q4_0", imatrix=str(tmp_path / "i.gguf"))
    item = plan.items[f"{DOWN}.weight"]
    assert (item.method.name, item.note) == ("mse", "not in the imatrix, all its columns count alike")


def test_an_imatrix_of_another_model_is_refused(home: Path, tmp_path: Path) -> None:
    other = Imatrix({"blk.0.attn_q.weight": Entry(np.ones((1, 96), np.float32), np.ones(1, np.float32))}, 1)
    imatrix.write(tmp_path / "i.gguf", other)
    with pytest.raises(FileError, match=r"blk.0.attn_q.weight: the imatrix of another model"):
        jobs.made(home / "llama", tmp_path / "o.gguf", type="q4_0", imatrix=str(tmp_path / "i.gguf"))


WRONG = [
    ("plan llama --type q4_0 --imatrix i.gguf --calib some.txt", "--imatrix: contradicts --calib"),
    ("plan llama --bits 4 --imatrix i.gguf --kv-cache fp8", "--imatrix: contradicts --kv-cache"),
    ("plan llama --to gguf --bpw 6 --imatrix i.gguf", "--imatrix: contradicts a budget"),
    ("plan llama --type q4_0 --imatrix i.gguf --method gptq", "gptq needs all second moments"),
    ("plan llama --type q4_0 --imatrix i.gguf --method adaround", "adaround needs samples"),
    ("plan llama --type q4_0 --imatrix i.gguf --method rtn", "--imatrix: is of no use to rtn"),
    ("plan llama --type q4_0 --imatrix some.txt", "some.txt: no imatrix"),
    ("plan llama --type q4_0 --imatrix none.gguf", "none.gguf: No such file"),
    ("plan net.onnx --imatrix i.gguf", "--imatrix: is for language models only"),
    ("imatrix llama --calib some.txt -o i.gguf", "i.gguf: the output exists"),
    ("imatrix llama --calib some.txt -o out", "Give -o NAME.gguf"),
    ("imatrix llama --calib none.txt -o o.gguf", "none.txt"),
    ("imatrix net.onnx --calib some.txt -o o.gguf", "net.onnx: ONNX networks have no imatrix"),
]


@pytest.mark.parametrize(("words", "cause"), WRONG, ids=[words for words, _ in WRONG])
def test_what_cannot_be_is_refused_in_a_line(
    words: str, cause: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    if not Path("net.onnx").exists():
        path, _ = jobs.network("mlp", home)
        path.rename("net.onnx")
    before = sorted(path.name for path in home.iterdir())
    told = CliRunner().invoke(app, words.split())
    assert told.exit_code == 2
    assert cause in told.stderr and told.stderr.startswith("bitwright: ") and told.stderr.count("\n") == 1
    assert sorted(path.name for path in home.iterdir()) == before


def test_an_output_that_was_quantized_by_an_imatrix_is_read_again(home: Path, tmp_path: Path) -> None:
    """And what another is made from does not say that it was made with it."""
    solved(home, tmp_path / "o.gguf")
    assert load_tokenizer(tmp_path / "o.gguf") is not None
    jobs.finish(jobs.made(tmp_path / "o.gguf", tmp_path / "p.gguf", type="q8_0", layer={"method": "rtn"}))
    assert not [key for key in GGUFReader(tmp_path / "p.gguf").fields if key.startswith("quantize.")]
