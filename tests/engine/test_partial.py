"""Unfinished work: one process alone writes there, nothing foreign is taken for it, faults of the input leave none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bitwright.engine.partial import MARK, hold
from bitwright.engine.run import run
from bitwright.errors import RecipeError, TensorError
from bitwright.events import Row, Started
from bitwright.models.model import Plan
from tests import jobs, tiny

RTN = {"method": "rtn", "group": 32}
HOLDER = """
import sys
from pathlib import Path
from bitwright.engine.partial import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make("llama", tmp_path_factory.mktemp("partial") / "source")


def plan(source: Path, out: Path) -> Plan:
    return jobs.made(source, out, layer=RTN)


def test_another_process_is_named_before_anything_is_done(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out.with_name("out.partial"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RecipeError, match=f"out.partial: pid {other.pid} is writing here"):
            plan(source, out)
        other.kill()
        other.wait()
    jobs.finish(plan(source, out))  # a lock ends with its process
    assert not (out / MARK).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_second_run_leaves_the_first_alone(source: Path, tmp_path: Path) -> None:
    first, second = plan(source, tmp_path / "out"), plan(source, tmp_path / "out")
    events = run(first)
    next(events)
    with pytest.raises(RecipeError, match=f"pid {os.getpid()} is writing here"):
        list(run(second))
    assert sum(isinstance(event, Row) for event in events) == 14
    assert (tmp_path / "out" / "certificate.json").exists()


def test_work_goes_on_after_the_lock_is_free(tmp_path: Path) -> None:
    for _ in range(2):
        with hold(tmp_path / "out.partial"):
            assert (tmp_path / "out.partial" / MARK).read_text() == f"{os.getpid()}\n"


def other_certificate(folder: Path) -> None:
    (folder / "certificate.json").write_text('{"title": "swimming"}')


def other_journal(folder: Path) -> None:
    (folder / "journal.jsonl").write_text("Monday: rain\n")


def finished_output(folder: Path) -> None:
    """Of another recipe: somebody gave it this name."""
    table = {"sha256": "0", "bytes": 1}
    row = {"name": "a", "format": "int4", "method": "rtn", "rows": 1, "columns": 1, "stored_bits": 4, "mse": 0.0}
    whole = {
        "source": {**table, "sha256": {"a": "0"}, "folder": "a"}, "output": {**table, "sha256": {"a": "0"}},
        "recipe": {"sha256": "0"}, "rows": [{**row, "sqnr": 1.0, "output_error": None, "notes": []}], "verdict": None,
        "notes": [], "stored_bits_per_weight": 4.0, "quantized_weights": 1,
    }  # fmt: skip
    (folder / "certificate.json").write_text(json.dumps(whole))


@pytest.mark.parametrize("fill", [other_certificate, other_journal, finished_output])
def test_a_foreign_folder_is_not_adopted(fill: object, source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out.partial"
    folder.mkdir()
    assert callable(fill)
    fill(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RecipeError, match="this is something else"):
        plan(source, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_link_is_not_adopted(source: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    for target in ("real", "nowhere"):
        (tmp_path / "out.partial").symlink_to(target)
        with pytest.raises(RecipeError, match="this is something else"):
            plan(source, tmp_path / "out")
        (tmp_path / "out.partial").unlink()


def test_after_a_fault_of_the_weights_the_corrected_ones_are_quantized(source: Path, tmp_path: Path) -> None:
    """The fault is in the last matrix: all others were finished, for a model that will not come back."""
    model = tmp_path / "model"
    shutil.copytree(source, model)
    tensors = load_file(model / "model.safetensors")
    last = "model.layers.1.self_attn.v_proj.weight"
    good = tensors[last].clone()
    tensors[last][3, 5] = torch.inf
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(TensorError, match=last):
        list(run(plan(model, tmp_path / "out")))
    assert not (tmp_path / "out.partial").exists()
    tensors[last] = good
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    jobs.finish(plan(model, tmp_path / "out"))


def test_work_that_finished_nothing_is_in_nobodys_way(source: Path, tmp_path: Path) -> None:
    jobs.stop_after(plan(source, tmp_path / "out"), lambda event: isinstance(event, Started))
    assert (tmp_path / "out.partial" / "journal.jsonl").exists()
    jobs.finish(jobs.made(source, tmp_path / "out", layer={"method": "mse", "group": 32, "format": "int8"}))


def test_a_copy_with_the_time_of_the_original_is_another_model(source: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(source, model)
    jobs.stop_after(plan(model, tmp_path / "out"), lambda event: isinstance(event, Row))
    weights = model / "model.safetensors"
    facts = weights.stat()
    data = bytearray(weights.read_bytes())
    data[-7] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(RecipeError, match="unfinished work of another recipe, model"):
        list(run(plan(model, tmp_path / "out")))


def test_a_new_time_alone_does_not_stop_it(source: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(source, model)
    jobs.stop_after(plan(model, tmp_path / "out"), lambda event: isinstance(event, Row))
    os.utime(model / "model.safetensors", (1, 1))
    events = list(run(plan(model, tmp_path / "out")))
    assert next(e.resumed for e in events if isinstance(e, Started) and e.phase == "quantize") > 0
