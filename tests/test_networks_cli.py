"""The command line on ONNX networks where all goes well: every command, in words and in JSON, and the demos."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from bitwright.cli import app
from bitwright.models.network.session import Session
from tests import networks

QUANTIZE = "quantize {tmp}/net.onnx -o {tmp}/out.onnx --calib {tmp}/data.npz --heldout {tmp}/held.npz"


def run(command: str, tmp: Path) -> str:
    """What a command that must succeed prints."""
    result = CliRunner().invoke(app, command.format(tmp=tmp).split())
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def events(command: str, tmp: Path) -> list[dict[str, Any]]:
    """Its events."""
    return [json.loads(line) for line in run(f"{command} --json", tmp).splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with residual sums, samples labelled by itself, and out.onnx made of them by a process of its own."""
    folder = tmp_path_factory.mktemp("networks")
    onnx.save(onnx.shape_inference.infer_shapes(networks.KINDS["residual"]()), folder / "net.onnx")
    session = Session(folder / "net.onnx")
    for seed, name in enumerate(("data", "held")):
        x = np.random.default_rng(seed).normal(size=(40, 3, 16, 16)).astype(np.float32)
        np.savez(folder / f"{name}.npz", x=x, labels=next(iter(session.run({"x": x}).values())).argmax(axis=1))
    words = [sys.executable, "-m", "bitwright.cli", *QUANTIZE.format(tmp=folder).split()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    (folder / "said.txt").write_text(done.stdout)
    return folder


def certificate(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out.certificate.json").read_text())
    return found


@pytest.mark.slow
def test_quantize_in_words(made: Path) -> None:
    said = (made / "said.txt").read_text()
    assert said.startswith(f"plan: {made}/net.onnx -> {made}/out.onnx\n")
    assert said.endswith(f"written: {made}/out.onnx and out.certificate.json, out.README.md\n")
    assert "uint8" in said
    assert "Accuracy" in said
    shares = [int(share) for share in re.findall(r"(\d+)%  ", said)]
    assert shares and max(shares) == 100, "progress ends at 100 %"
    assert len(said.splitlines()) < 60
    assert certificate(made)["verdict"]["top1_quantized"] > 0.9
    assert certificate(made)["data"]["heldout"]["samples"] == 40


def test_quantize_in_json(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    (tmp_path / "out.onnx").unlink()
    found = events(QUANTIZE + " --bits 4 --method gptq", tmp_path)
    kinds = [event["event"] for event in found]
    assert kinds[0] == "plan"
    assert kinds[-1] == "finished"
    assert {event["phase"] for event in found if event["event"] == "started"} == {"calibrate", "quantize", "certify"}
    assert all(0 <= event["done"] <= event["total"] for event in found if event["event"] == "progress")
    rows = [event for event in found if event["event"] == "row"]
    assert {row["name"] for row in rows} == {item["name"] for item in found[0]["quantized"]}
    assert found[-1]["certificate"] == certificate(tmp_path)
    assert Path(found[-1]["out"]) == tmp_path / "out.onnx"


def test_quantize_by_a_recipe_with_a_largest_drop(made: Path, tmp_path: Path) -> None:
    """Two bits are too few: layers come back until no sample of the calibration is lost."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    (tmp_path / "out.onnx").unlink()
    network = '[network]\nequalize = false\nbias = "none"\n'
    (tmp_path / "recipe.toml").write_text(f'[layer]\nformat = "int2"\nmethod = "rtn"\n{network}')
    run(QUANTIZE + " --recipe {tmp}/recipe.toml --max-drop 0", tmp_path)
    found = certificate(tmp_path)
    assert found["kept_float"]
    assert set(found["kept_float"]) <= set(found["float_nodes"])
    assert {row["format"] for row in found["rows"]} == {"int2_narrow channel"}
    assert found["recipe"]["max_drop"] == 0


def test_plan(made: Path) -> None:
    """With the samples it counts them; without it needs none. It writes nothing."""
    before = sorted(made.iterdir())
    words = run("plan {tmp}/net.onnx", made)
    assert "layers as int8_narrow channel by descent" in words
    assert "samples" not in words
    for part in ("per quantized weight", "memory: about", "time: about", "loads in: ONNX Runtime"):
        assert part in words
    assert "30 samples to calibrate, 10 for the verdict (npz)" in run(
        "plan {tmp}/net.onnx --calib {tmp}/data.npz", made
    )
    [plan] = events("plan {tmp}/net.onnx --bits 4", made)
    assert plan["event"] == "plan"
    assert {item["format"] for item in plan["quantized"]} == {"int4_narrow channel"}
    assert (made / "out.onnx").stat().st_size <= plan["final_bytes"] < plan["source_bytes"]
    assert {item["name"] for item in plan["quantized"]} == {row["name"] for row in certificate(made)["rows"]}
    assert plan["peak_memory_bytes"] > 0 and plan["seconds"] > 0 and plan["runtimes"]
    assert plan["stored_bits_per_weight"] > 8, "integer kernels read a byte each"
    assert plan["activations"]
    assert sorted(made.iterdir()) == before


def test_measure(made: Path) -> None:
    command = "measure {tmp}/net.onnx {tmp}/out.onnx --heldout {tmp}/held.npz"
    found = events(command, made)[-1]
    assert found["event"] == "comparison"
    known = certificate(made)["verdict"]
    assert {key: found[key] for key in known} == known, "the certificate's own numbers come back"
    assert "top-1 accuracy" in run(command, made)
    *_, same = events("measure {tmp}/out.onnx {tmp}/out.onnx --heldout {tmp}/held.npz", made)
    assert same["kl"] == 0
    assert same["top1_agreement"] == 1


def test_check(made: Path) -> None:
    words = run("check {tmp}/out.onnx --against {tmp}/net.onnx --heldout {tmp}/held.npz", made)
    assert "sound" in words.splitlines()
    assert "top-1 accuracy" in words
    found = events("check {tmp}/out.onnx --against {tmp}/net.onnx", made)
    assert all(event["good"] for event in found if event["event"] == "finding")
    rows = [event for event in found if event["event"] == "row"]
    assert len(rows) == len(certificate(made)["rows"])
    assert min(row["sqnr"] for row in rows) > 30


def damage(model: onnx.ModelProto) -> str:
    """Make the scale of one weight zero; its name."""
    dequantized = {n.input[1] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    scale = next(t for t in model.graph.initializer if t.name in dequantized and len(t.dims))
    values = onnx.numpy_helper.to_array(scale).copy()
    values[-1] = 0
    scale.CopyFrom(onnx.numpy_helper.from_array(values, scale.name))
    return str(scale.name)


def test_check_of_a_damaged_file(made: Path, tmp_path: Path) -> None:
    model = onnx.load(made / "out.onnx")
    name = damage(model)
    onnx.save(model, tmp_path / "out.onnx")
    result = CliRunner().invoke(app, ["check", str(tmp_path / "out.onnx")])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"bitwright: {tmp_path}/out.onnx: not sound: {name} is zero or not finite.")
    assert "not sound" in result.stdout.splitlines()


@pytest.mark.parametrize(("kind", "begins"), [("md", "## "), ("json", ""), ("html", "<!doctype html>")])
def test_report(kind: str, begins: str, made: Path, tmp_path: Path) -> None:
    command = f"report {{tmp}}/out.onnx --format {kind}"
    text = run(command, made)
    assert text.strip().lower().startswith(begins)
    assert "out.onnx" in text
    if kind == "json":
        assert json.loads(text)
    assert run(f"{command} -o {tmp_path}/page", made) == f"written: {tmp_path}/page\n"
    assert (tmp_path / "page").read_text() + "\n" == text


@pytest.mark.slow
@pytest.mark.parametrize(("task", "name"), [("vision", "digits"), ("speech", "words")])
def test_demo(task: str, name: str, tmp_path: Path) -> None:
    """The bundled networks on data this machine makes: accurate, in integers; a second time replaces."""
    out = tmp_path / "demo"
    found = events(f"demo --task {task} -o {out}", tmp_path)
    done = next(event for event in found if event["event"] == "finished")["certificate"]
    assert done == json.loads((out / f"{name}.certificate.json").read_text())
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["data", f"{name}.README.md", f"{name}.certificate.json", f"{name}.onnx", "report.html"]
    )
    verdict = done["verdict"]
    assert verdict["labelled"] >= 400
    assert verdict["top1_float"] > 0.95
    assert verdict["top1_quantized"] >= verdict["top1_float"] - 0.01
    assert done["speed"]["integer_share"] > 0.3
    assert done["output"]["bytes"] < 0.6 * done["source"]["bytes"]
    assert len(done["data"]["heldout"]["classes"]) == 10
    assert "<svg" in (out / "report.html").read_text()
    run("check {tmp}/demo/" + f"{name}.onnx", tmp_path)
    if task == "vision":
        run(f"demo --task {task} -o {out} --bits 4", tmp_path)
        assert json.loads((out / f"{name}.certificate.json").read_text())["rows"][0]["format"] == "int4_narrow channel"


@pytest.mark.slow
def test_demo_of_a_detector(tmp_path: Path) -> None:
    """A raw head on drawn scenes: mAP before and after, and pictures with the boxes of both in the report."""
    out = tmp_path / "demo"
    found = events(f"demo --task detect -o {out}", tmp_path)
    done = next(event for event in found if event["event"] == "finished")["certificate"]
    assert sorted(path.name for path in out.iterdir()) == [
        "data", "report.html", "scenes.README.md", "scenes.certificate.json", "scenes.onnx"
    ]  # fmt: skip
    verdict = done["verdict"]
    assert verdict["images"] == 300 and verdict["map_float"] > 0.6
    assert verdict["map_quantized"] > verdict["map_float"] - 0.01
    assert verdict["boxes_agreement"] > 0.95
    assert done["output"]["bytes"] < 0.6 * done["source"]["bytes"]
    shown = done["pictures"]["shown"]
    assert len(shown) == 4 and all(picture["truth"] and picture["float"] for picture in shown)
    page = (out / "report.html").read_text()
    assert all(picture["jpeg"] in page for picture in shown) and page.count('class="box true"') == sum(
        len(picture["truth"]) for picture in shown
    )
    run("check {tmp}/demo/scenes.onnx", tmp_path)


@pytest.mark.parametrize("task", ["vision", "detect", "language"])
def test_a_demo_that_fails_does_not_bar_the_way(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitwright.engine import run as loop

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "Writer", stop)
    result = CliRunner().invoke(app, ["demo", "--task", task, "-o", str(tmp_path / "demo")])
    assert (result.exit_code, result.stderr) == (130, "bitwright: stopped\n")
    assert not list(tmp_path.iterdir())
