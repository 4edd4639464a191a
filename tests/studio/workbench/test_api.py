"""The workbench over HTTP, against a real server with real workers: what it answers, and what it refuses in words."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from bitwright.models import kinds
from bitwright.studio.workbench.runs import default_name
from tests import gguf
from tests.studio.house import CONTENT, DEMO, DIGITS, RTN, Studio

pytestmark = pytest.mark.slow

LIMIT = 6_000_000


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the studio opens, with models, what is none, and links that lead out of it."""
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(DEMO, root / "team" / "copy")
    (root / "nets").mkdir()
    shutil.copy(DIGITS, root / "nets" / "DIGITS.ONNX")
    shutil.copytree(DEMO, root / "a" / "b" / "c" / "d" / "too-deep")
    shutil.copytree(DEMO, root / ".hidden" / "model")
    (root / "empty").mkdir()
    (root / "text.txt").write_text("hello " * 50)
    outside = tmp_path_factory.mktemp("outside")
    shutil.copytree(DEMO, outside / "model")
    (root / "link").symlink_to(outside / "model")
    (root / "nets" / "link.onnx").symlink_to(DIGITS.parents[1] / "words" / "model.onnx")
    (root / "etc").symlink_to("/etc")
    return root


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Studio]:
    with Studio(tmp_path_factory.mktemp("data"), models=[str(models)], max_upload=LIMIT) as studio:
        yield studio


@pytest.fixture(scope="module")
def done(studio: Studio) -> dict[str, Any]:
    """A finished run."""
    return studio.wait(studio.run(), "done")


def test_the_web_process_never_imports_torch() -> None:
    program = "import bitwright.studio.shell.app, sys; print({'torch', 'transformers', 'onnx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- models and plans


def test_models_that_may_be_opened(studio: Studio, models: Path, done: dict[str, Any]) -> None:
    found = studio.get("/api/models")
    assert found["roots"] == [str(models)]
    by_path = {model["path"]: model for model in found["models"]}
    assert [model["from"] for model in found["models"]][:3] == ["bundled"] * 3
    demo = by_path[str(DEMO)]
    assert demo == {
        "path": str(DEMO), "name": "Demo language model", "kind": "language", "bundled": True, "from": "bundled",
        "bytes": (DEMO / "model.safetensors").stat().st_size,
        "recipe": {"calibration": {"source": "stdlib", "windows": 64, "heldout_windows": 16}},
    }  # fmt: skip
    folders = {path: model["kind"] for path, model in by_path.items() if model["from"] == "folder"}
    assert folders == {str(models / "team/copy"): "language", str(models / "nets/DIGITS.ONNX"): "network"}
    assert by_path[str(models / "team/copy")]["name"] == "team/copy"
    [made] = [model for model in found["models"] if model["from"] == "run" and model["name"] == done["name"]]
    assert Path(made["path"]).joinpath("config.json").exists()


def plan(studio: Studio, model: object, recipe: Any = RTN, status: int = 200) -> Any:
    return studio.post("/api/plans", {"model": str(model), "recipe": recipe}, status)


def test_plans(studio: Studio, models: Path) -> None:
    found = plan(studio, DEMO)
    assert found["kind"] == "language"
    assert len(found["quantized"]) == 21
    assert found["final_bytes"] < found["source_bytes"]
    assert found["seconds"] > 0
    assert plan(studio, "team/copy")["final_bytes"] == found["final_bytes"], "relative to the root"
    network = plan(studio, models / "nets/DIGITS.ONNX", {"layer": {"format": "int8"}})
    assert network["kind"] == "network"
    assert plan(studio, DIGITS, {})["final_bytes"] == network["final_bytes"]


def test_plans_of_budgets_and_mixes(studio: Studio) -> None:
    """Whatever a budget has yet to choose is said to be open."""
    found = plan(studio, DEMO, {"budget": {"size": 1_600_000}})
    least, most = found["possible_bytes"]
    assert least < found["final_bytes"] == 1_600_000 < most
    assert found["stored_bits_per_weight"] is None
    open = [row["formats"] for row in found["quantized"] if row["format"] is None]
    assert open == [["int4 g128", "int8 g128"]] * 21
    little = {"model": str(DEMO), "recipe": {"budget": {"bpw": 1}}}
    assert studio.error(studio.client.post("/api/plans", json=little), 400)["key"] == "budget"
    mixed = plan(studio, DEMO, {"type": "q4_k_m", "output": "gguf"})
    assert mixed["container"] == "gguf" and mixed["possible_bytes"] is None
    assert all(row["format"] for row in mixed["quantized"])


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ({"layer": {"group": 64}}, "demo-model int4 g64 descent"),
        ({"type": "q4_k_m", "layer": {"method": "rtn"}}, "demo-model q4_k_m rtn"),
        ({"budget": {"size": 1_600_000}}, "demo-model 1.6 MB descent"),
        ({"budget": {"bpw": 4.5}}, "demo-model 4.5 bpw descent"),
        ({"budget": {"kl": 0.01}}, "demo-model KL 0.01 descent"),
    ],
)
def test_a_run_is_called_after_what_is_asked_for(recipe: Any, name: str) -> None:
    assert default_name(Path("demo-model"), recipe, kinds.get("language")) == name


@pytest.mark.parametrize(
    ("recipe", "key", "says"),
    [
        ({"layer": {"formt": "int4"}}, "layer.formt", ("Did you mean format?",)),
        ({"layer": {"method": "magic"}}, "layer.method", ("rtn",)),
        ({"layer": {"format": "int77"}}, "layer.format", ("int77",)),
        ({"layer": {"format": "nf4"}}, "layer.format", ("no stable packing",)),
        ({"layer": {"format": "int4", "group": "tensor"}}, "layer.group", ("no stable packing",)),
        ({"layer": {"activations": "int8"}}, "layer.activations", ("8-bit weights per channel",)),
        ({"layer": {"format": "int8", "group": "channel", "activations": "int8"}, "output": "float"},
         "layer.activations", ("how activations are rounded",)),
        ({"layer": {"method": "lloyd"}}, "layer.method", ("no codebook to fit",)),
        ({"layer": {"options": {"sweeps": -1}}}, "layer.options.sweeps", ("greater than or equal to 0",)),
        ({"output": "qdq"}, "output", ("compressed-tensors",)),
        ({"max_drop": -1}, "max_drop", ("greater than or equal to 0",)),
        ({"calibration": {"windows": 0}}, "calibration.windows", ()),
        ({"data": {"samples": 3}}, "data", ("recipe: data: is for ONNX networks", "Leave it out")),
        ({"rules": [{"match": "nothing.*", "format": "int8"}]}, "rules.0.match", ("nothing.*", "matches no matrix")),
        ({"layer": {"group": 100}}, "layer.group", ("do not divide into groups of 100", "Give group 128, the best")),
        ({"calibration": {"source": "/etc/passwd"}}, "calibration.source", ("lies outside", "--models /etc")),
        ({"calibration": {"heldout": "../../../../../etc/passwd"}}, "calibration.heldout", ("lies outside",)),
        ({"calibration": {"source": "none.txt"}}, "calibration.source", ("does not exist",)),
        ({"calibration": {"source": ["stdlib:2", "/etc/passwd:3"]}}, "calibration.source", ("/etc/passwd'",)),
        ({"calibration": {"source": "stdlib:0"}}, "calibration.source", ("'0' is not a share",)),
    ],
)  # fmt: skip
def test_recipes_that_do_not_fit(recipe: Any, key: str, says: tuple[str, ...], studio: Studio) -> None:
    """The error names the option at fault, and no run begins."""
    for path in ("/api/plans", "/api/runs"):
        error = studio.error(studio.client.post(path, json={"model": str(DEMO), "recipe": recipe}), 400)
        assert error["key"] == key
        for words in says:
            assert words in f"{error['text']} {error['fix']}"


@pytest.mark.parametrize(
    ("recipe", "key"),
    [
        ({"calibration": {"windows": 3}}, "calibration"),
        ({"layer": {"format": "nf4"}}, "layer.format"),
        ({"layer": {"group": 64}}, "layer.group"),
        ({"output": "nbits"}, "output"),
        ({"layer": {"format": "float"}}, "layer.format"),
        ({"output": "float"}, "output"),
        ({"layer": {"method": "lsq"}, "max_drop": 1}, "layer.method"),
        ({"data": {"source": "text.txt"}}, "data.source"),
    ],
)
def test_recipes_that_do_not_fit_a_network(recipe: Any, key: str, studio: Studio) -> None:
    error = studio.error(studio.client.post("/api/plans", json={"model": "nets/DIGITS.ONNX", "recipe": recipe}), 400)
    assert error["key"] == key, error


def test_choices_and_kinds(studio: Studio, models: Path) -> None:
    found = studio.get("/api/choices")
    assert set(found) == {"language", "network"}
    assert "int4" in [each["name"] for each in found["language"]["formats"]]
    assert found["language"]["words"]["drop"] == "percent of perplexity"
    assert studio.get("/api/kind?model=team/copy") == {"kind": "language"}
    assert studio.get("/api/kind?model=nets/DIGITS.ONNX") == {"kind": "network"}
    for wrong in ("", "?model=/etc", "?model=text.txt"):
        studio.error(studio.client.get(f"/api/kind{wrong}"), 400)


def test_every_choice_can_be_planned(studio: Studio) -> None:
    """What the page offers, the engine takes: some of them, from all over the list."""
    for name, model in (("language", DEMO), ("network", DIGITS)):
        fits = studio.get("/api/choices")[name]["fits"]
        fits = [fit for fit in fits if fit["container"] != "nbits"]  # it holds matrix products, digits has none
        for fit in fits[:: max(1, len(fits) // 12)]:
            layer = {key: fit[key] for key in ("format", "symmetric", "activations")}
            layer |= {"group": fit["block"], "method": fit["methods"][-1]}
            made = plan(studio, model, {"layer": layer, "output": fit["container"]})
            assert made["container"] == fit["container"]
            assert made["quantized"]


def test_text_below_a_root_is_taken(studio: Studio, models: Path) -> None:
    for source in ("text.txt", "text.txt:3", ["stdlib:3", "text.txt:1"]):
        assert plan(studio, DEMO, {**RTN, "calibration": {"source": source}})["kind"] == "language"


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("/etc", "lies outside the folders"), ("etc", "lies outside"), ("link", "lies outside"), ("", "lies outside"),
        ("../..", "lies outside"), ("team/copy/../../../..", "lies outside"), ("/", "lies outside"),
        ("~", "lies outside"), ("~nobody-here/x", ""), ("a\0b", "is not a path"), ("x" * 5000, "at most 4096"),
        ("missing", "does not exist"), ("hub:some/model", "does not download"), ("empty", "no config.json"),
        ("team/copy/config.json", ""), ("text.txt", ""), (str(CONTENT), "lies outside"),
    ],
)  # fmt: skip
def test_paths_that_are_no_model(model: str, says: str, studio: Studio) -> None:
    error = studio.error(studio.client.post("/api/plans", json={"model": model, "recipe": RTN}), 400)
    assert says in f"{error['text']} {error['fix']}"
    if says == "lies outside":
        assert "bitwright studio --models" in error["fix"]


def test_a_model_behind_a_link_may_be_opened_where_it_lies(studio: Studio, models: Path) -> None:
    assert plan(studio, models / "team" / "copy" / ".." / "copy")["kind"] == "language"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"model": 3}', b'{"model": "x", "more": 1}', b"\xff\xfe"]
)
def test_bodies_that_say_nothing(body: bytes, studio: Studio) -> None:
    for path in ("/api/plans", "/api/runs", "/api/check"):
        studio.error(studio.client.post(path, content=body), 400)


# --- runs


@pytest.mark.parametrize("id", ["0", "99999", "-1", "1.5", "x", "..", "9" * 30, "%00", "１"])
def test_runs_that_are_not_there(id: str, studio: Studio) -> None:
    for method, path in (
        ("GET", ""), ("DELETE", ""), ("POST", "/stop"), ("POST", "/resume"), ("GET", "/events"), ("GET", "/report"),
        ("GET", "/certificate"), ("GET", "/matrices/a/b"), ("POST", "/generate"),
    ):  # fmt: skip
        if id == "..":
            continue  # the client takes it back
        answer = studio.client.request(method, f"/api/runs/{id}{path}")
        assert "no run is called" in studio.error(answer, 404)["text"]


def test_certificate_and_report(studio: Studio, done: dict[str, Any]) -> None:
    answer = studio.client.get(f"/api/runs/{done['id']}/certificate")
    assert answer.json()["verdict"]["kl"] == done["summary"]["kl"]
    assert 'filename="demo-model-int4-rtn.certificate.json"' in answer.headers["content-disposition"]
    page = studio.client.get(f"/api/runs/{done['id']}/report")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert done["summary"]["words"] in page.text.lower()


def test_matrices(studio: Studio, done: dict[str, Any]) -> None:
    for row in (done["rows"][0], done["rows"][-1]):
        found = studio.get(f"/api/runs/{done['id']}/matrices/{row['name']}")
        assert found["name"] == row["name"]
        assert found["sqnr"] == pytest.approx(row["sqnr"], abs=0.01)
        assert found["mse"] == pytest.approx(row["mse"], rel=0.001)
        assert found["low"] < 0 < found["high"]
        for key in ("before", "after", "errors"):
            assert len(found[key]) == 96
        assert sum(found["before"]) == sum(found["after"]) == row["rows"] * row["columns"]
        assert sum(found["errors"]) == pytest.approx(1)
        assert found["levels"] is None
    for name in ("none", "model.embed_tokens.weight", "a/b", "a b"):
        path = f"/api/runs/{done['id']}/matrices/{quote(name, safe='')}"
        studio.error(studio.client.get(path), 404)


@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        (DEMO, {**RTN, "layer": {"format": "int4", "method": "gptq", "symmetric": False, "group": 64}}),
        (DEMO, {**RTN, "layer": {"format": "int3", "method": "gptq"}, "output": "float"}),
        (DIGITS, {"layer": {"format": "int4", "method": "adaround"}}),
    ],
    ids=["packed", "float", "network"],
)
def test_matrices_of_a_run_under_way(studio: Studio, model: Path, recipe: Any) -> None:
    """What is written can be looked at, also of a run that was stopped."""
    id = studio.run(model, recipe)
    studio.when(lambda: len(studio.get(f"/api/runs/{id}")["rows"]) >= 1)
    studio.post(f"/api/runs/{id}/stop", status=202)
    run = studio.wait(id, "stopped")
    row = run["rows"][0]
    found = studio.get(f"/api/runs/{id}/matrices/{row['name']}")
    assert found["sqnr"] == pytest.approx(row["sqnr"], abs=0.01)
    written = {row["name"] for row in run["rows"]}
    missing = next(i["name"] for i in plan(studio, model, recipe)["quantized"] if i["name"] not in written)
    error = studio.error(studio.client.get(f"/api/runs/{id}/matrices/{missing}"), 409)
    assert "not written yet" in error["text"]
    assert studio.client.delete(f"/api/runs/{id}").status_code == 204


def test_matrices_of_a_finished_network(studio: Studio) -> None:
    """Equalization changed its weights before they were rounded: they are compared as they were then."""
    run = studio.wait(studio.run(DIGITS, {"layer": {"format": "int4", "method": "rtn"}}), "done")
    for row in run["rows"]:
        found = studio.get(f"/api/runs/{run['id']}/matrices/{row['name']}")
        assert found["sqnr"] == pytest.approx(row["sqnr"], abs=0.01)


def generation(studio: Studio, id: str, **body: Any) -> tuple[dict[str, list[str]], list[bool], dict[str, Any]]:
    sides: dict[str, list[str]] = {"float": [], "quantized": []}
    same: dict[int, bool] = {}
    for _, event in studio.events(f"/api/runs/{id}/generate", method="POST", json={"prompt": "def main(", **body}):
        if event["event"] == "done":
            return sides, list(same.values()), event
        assert event["index"] == len(sides[event["side"]])
        sides[event["side"]].append(event["token"])
        assert same.setdefault(event["index"], event["same"]) == event["same"]
    raise AssertionError("no end was told")


def test_generation_side_by_side(studio: Studio, done: dict[str, Any]) -> None:
    sides, same, end = generation(studio, done["id"], tokens=24)
    assert len(sides["float"]) == len(sides["quantized"]) == 24
    first = end["first_difference"]
    assert same == [i < (24 if first is None else first) for i in range(24)]
    assert sides["float"][:first] == sides["quantized"][:first]
    assert set(end["seconds"]) == {"float", "quantized"}
    assert generation(studio, done["id"], tokens=24)[0] == sides, "not repeatable"
    warm = [generation(studio, done["id"], tokens=12, temperature=1.0, seed=seed)[0] for seed in (1, 1, 2)]
    assert warm[0] == warm[1] != warm[2]
    assert "".join(generation(studio, done["id"], prompt="", tokens=3)[0]["float"]) is not None


def test_generation_without_loss_never_differs(studio: Studio) -> None:
    """The noise is the same for both, so equal models write equal text: a difference is the model's."""
    recipe = {"layer": {"format": "int8", "group": 32, "method": "rtn"}, "calibration": RTN["calibration"]}
    run = studio.wait(studio.run(recipe=recipe), "done")
    sides, same, end = generation(studio, run["id"], tokens=16, temperature=0.7, seed=5)
    assert end["first_difference"] is None
    assert all(same)
    assert sides["float"] == sides["quantized"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"tokens": 0}, "greater than or equal to 1"), ({"tokens": 201}, "200"), ({"temperature": 2.1}, "2"),
        ({"temperature": "NaN"}, ""), ({"prompt": "x y z " * 500}, "the model was made for 512"), ({"prompt": 1}, ""),
        ({"seed": -1}, ""), ({"prompt": "x" * 30_000}, "20000"),
    ],
)  # fmt: skip
def test_generation_that_cannot_be(body: dict[str, Any], says: str, studio: Studio, done: dict[str, Any]) -> None:
    answer = studio.client.post(f"/api/runs/{done['id']}/generate", json={"prompt": "x", **body})
    assert says in studio.error(answer, 400)["text"]


def test_leaving_a_generation_frees_the_worker(studio: Studio, done: dict[str, Any]) -> None:
    body = {"prompt": "x", "tokens": 200}
    with studio.client.stream("POST", f"/api/runs/{done['id']}/generate", json=body) as answer:
        next(answer.iter_lines())
    assert plan(studio, DEMO)["kind"] == "language"
    assert len(generation(studio, done["id"], tokens=2)[0]["float"]) == 2


def test_pareto(studio: Studio, done: dict[str, Any]) -> None:
    points = studio.get("/api/pareto")["points"]
    [point] = [point for point in points if point["id"] == done["id"]]
    assert point == {
        "id": done["id"], "name": done["name"], "model": "demo-model", "source": str(DEMO),
        "bytes": done["summary"]["final_bytes"], "kl": done["summary"]["kl"],
        "kl_interval": done["summary"]["kl_interval"], "bits": done["summary"]["stored_bits"],
    }  # fmt: skip


def test_a_killed_quick_worker_is_not_noticed(studio: Studio) -> None:
    plan(studio, DEMO)
    pid = studio.pids()["quick"]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert plan(studio, DEMO)["kind"] == "language"
    assert studio.pids()["quick"] != pid


def test_pages_do_not_wait_for_a_run(studio: Studio) -> None:
    id = studio.run(recipe={**RTN, "layer": {"format": "int4", "method": "gptq"}})
    studio.wait(id, "running")
    assert plan(studio, DEMO)["kind"] == "language"
    assert studio.get(f"/api/runs/{id}")["state"] == "running"
    studio.post(f"/api/runs/{id}/stop", status=202)
    studio.wait(id, "stopped")


def test_a_locked_database(studio: Studio) -> None:
    import sqlite3

    locked = sqlite3.connect(Path(studio.config["data"]) / "studio.db", isolation_level=None)
    locked.execute("BEGIN EXCLUSIVE")
    try:
        error = studio.error(studio.client.post("/api/runs", json={"model": str(DEMO), "recipe": RTN}), 503)
    finally:
        locked.execute("ROLLBACK")
        locked.close()
    assert "locked" in error["text"]
    assert studio.get("/api/runs")


# --- check


def upload(studio: Studio, files: dict[str, bytes]) -> str:
    id: str = studio.post("/api/uploads", status=201)["id"]
    for place, data in files.items():
        answer = studio.client.put(f"/api/uploads/{id}/{place}", content=data)
        assert answer.status_code == 201, answer.text
        assert answer.json() == {"bytes": len(data)}
    return id


def findings(studio: Studio, path: str, body: Any = None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    told = [event for _, event in studio.events(path, method="POST", json=body or {})]
    assert told[-1]["event"] == "done"
    return [event for event in told if event["event"] == "finding"], told[-1]


def files_of(folder: Path) -> dict[str, bytes]:
    return {f"{folder.name}/{path.name}": path.read_bytes() for path in folder.iterdir()}


def test_a_dropped_folder_is_checked(studio: Studio, done: dict[str, Any]) -> None:
    out = Path(studio.config["data"]) / "runs" / done["id"] / "out"
    id = upload(studio, files_of(out))
    found, end = findings(studio, f"/api/uploads/{id}/check", {"against": str(DEMO)})
    assert end["sound"] is True
    assert [finding["what"] for finding in found] == [
        "files",
        "config and tensors",
        "tensors",
        "levels",
        "coverage",
        "loads in",
        "certificate",
    ]
    assert "decode alike in two decoders" in found[2]["detail"]
    answer = studio.client.put(f"/api/uploads/{id}/out/model.safetensors", content=damaged(out))
    assert answer.status_code == 201
    found, end = findings(studio, f"/api/uploads/{id}/check")
    assert end["sound"] is False
    assert not all(finding["good"] for finding in found)
    assert str(studio.config["data"]) not in json.dumps(found), "a path that is nobody's business"
    assert studio.client.delete(f"/api/uploads/{id}").status_code == 204
    studio.error(studio.client.post(f"/api/uploads/{id}/check"), 404)


def damaged(out: Path) -> bytes:
    data = bytearray((out / "model.safetensors").read_bytes())
    return bytes(data[: len(data) // 2])


def test_a_dropped_network_is_checked(studio: Studio) -> None:
    pytest.importorskip("onnxruntime")
    id = upload(studio, {"some net.onnx": DIGITS.read_bytes()})
    found, end = findings(studio, f"/api/uploads/{id}/check")
    assert [finding["what"] for finding in found][:2] == ["file", "onnx.checker and ONNX Runtime"]
    assert end["sound"] is False, "it is a float network"
    id = upload(studio, {"broken.onnx": DIGITS.read_bytes()[:5000]})
    found, end = findings(studio, f"/api/uploads/{id}/check")
    assert end["sound"] is False
    assert "broken.onnx" in found[0]["detail"]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"model.safetensors": b"x"}, "came without its config.json"),
        ({"model/config.json": b"{}"}, "no .safetensors file beside it"),
        ({"pytorch_model.bin": b"x", "readme.md": b""}, "a PyTorch pickle"),
        ({"notes.txt": b"x", "more.txt": b"y"}, "No model among 2 files (more.txt, notes.txt)"),
        ({}, "There is no file"),
    ],
)
def test_what_is_no_model_is_told_plainly(files: dict[str, bytes], says: str, studio: Studio) -> None:
    found, end = findings(studio, f"/api/uploads/{upload(studio, files)}/check")
    assert len(found) == 1
    assert says in found[0]["detail"]
    assert end["sound"] is False
    assert "Nothing was checked" in end["text"]


def test_a_gguf_file_of_an_unknown_network_gets_no_verdict(studio: Studio) -> None:
    whole = gguf.made({"w": (2, (32,), b"\0\x3c" + bytes(16))}).replace(b"llama", b"clown")
    for data, sound, words in ((whole, None, "No verdict"), (whole[:-1], False, "Not sound")):
        found, end = findings(studio, f"/api/uploads/{upload(studio, {'model.gguf': data})}/check")
        assert end["sound"] is sound and words in end["text"]
    assert "truncated" in found[0]["detail"]


def test_a_model_is_checked_by_its_path(studio: Studio, models: Path) -> None:
    found, end = findings(studio, "/api/check", {"model": "team/copy"})
    assert "nothing is quantized" in found[-1]["detail"]
    assert end["sound"] is True
    studio.error(studio.client.post("/api/check", json={"model": "/etc/passwd"}), 400)
    studio.error(studio.client.post("/api/check", json={"model": "team/copy", "against": "/etc"}), 400)


@pytest.mark.parametrize(
    "place", ["..%2f..%2fx", "%2e%2e/x", "a/%2e%2e/%2e%2e/x", "%2fetc%2fx", "a%00b", "a%5c..%5cb", "a/b/c/d/e", "a//b"]
)
def test_uploads_stay_in_their_folder(place: str, studio: Studio) -> None:
    """As sent by a client that tidies nothing."""
    id = studio.post("/api/uploads", status=201)["id"]
    data = Path(studio.config["data"])
    before = sorted(data.rglob("*"))
    address = (studio.client.base_url.host, studio.client.base_url.port or 0)
    with socket.create_connection(address) as raw:
        head = f"PUT /api/uploads/{id}/{place} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbad"
        raw.sendall(head.encode())
        answer = b""
        while part := raw.recv(65536):
            answer += part
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404")), answer
    assert sorted(data.rglob("*")) == before


def test_uploads_have_limits(studio: Studio) -> None:
    id = studio.post("/api/uploads", status=201)["id"]
    answer = studio.client.put(f"/api/uploads/{id}/big", content=bytes(LIMIT + 1))
    error = studio.error(answer, 413)
    assert "larger than 0.006 GB" in error["text"]
    assert "--max-upload" in error["fix"]

    def pieces() -> Iterator[bytes]:
        for _ in range(7):
            yield bytes(1_000_000)

    studio.error(studio.client.put(f"/api/uploads/{id}/big", content=pieces()), 413)
    studio.error(studio.client.put("/api/uploads/0123456789abcdef/a", content=b"x"), 404)
    folder = Path(studio.config["data"]) / "uploads" / id
    assert not [path for path in folder.rglob("*") if path.is_file()]
    assert studio.client.put(f"/api/uploads/{id}/big", content=bytes(LIMIT)).status_code == 201


def test_a_full_disk_refuses_uploads(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    try:
        with Studio(disk) as studio:
            id = studio.post("/api/uploads", status=201)["id"]
            for body in (bytes(3_000_000), iter([bytes(1_000_000)] * 3)):
                error = studio.error(studio.client.put(f"/api/uploads/{id}/a", content=body), 507)
                assert "Free some space" in error["fix"]
            assert not [path for path in (disk / "uploads").rglob("*") if path.is_file()]
    finally:
        subprocess.run(["umount", disk], check=False)


def test_many_at_once(studio: Studio, done: dict[str, Any]) -> None:
    """Streams and questions side by side; nobody gets another's answer."""
    wrong: list[str] = []

    def ask(number: int) -> None:
        wanted = f"int{(2, 4, 8)[number % 3]}"
        found = plan(studio, DEMO, {**RTN, "layer": {"format": wanted, "method": "rtn"}})
        if not found["quantized"][0]["format"].startswith(wanted):
            wrong.append(str(found["quantized"][0]))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(9)]
    for thread in threads:
        thread.start()
    told = list(studio.events(f"/api/runs/{done['id']}/events"))
    for thread in threads:
        thread.join()
    assert not wrong
    assert told[-1][1]["state"] == "done"
