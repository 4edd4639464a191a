"""Models of the hub, from the command line: quantized at a revision, and recorded at its commit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

import bitwright as bw
from bitwright.cli import app
from bitwright.models.demos import digits
from tests import hub

CONTENT = Path(bw.__file__).parent / "content"
WORDS = "--method rtn --calib stdlib --windows 2 --length 16 --heldout-windows 2"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub.Hub]:
    with hub.served() as found:
        hub.use(found, tmp_path / "home", monkeypatch)
        found.add("me/small", {"config.json": b"{}"}).commit(hub.read(CONTENT / "demo-model"), "v1")
        found.add("me/digits", {"LICENSE": b"terms\n", "README.md": b"---\nlicense: mit\n---\nDigits.\n"}).commit(
            {"onnx/model.onnx": (CONTENT / "digits" / "model.onnx").read_bytes()}
        )
        yield found


def run(words: str) -> Any:
    result = CliRunner().invoke(app, words.split(), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_a_model_at_a_revision(server: hub.Hub, tmp_path: Path) -> None:
    commit, out = server.repositories["me/small"].refs["v1"], tmp_path / "out"
    said = run(f"quantize hub:me/small@v1 -o {out} {WORDS}").stdout.splitlines()
    assert said[0].startswith(f"  downloading me/small@{commit[:12]}: 6 files, 4.")
    assert f"plan: hub:me/small@{commit} -> {out}" in said
    source = json.loads((out / "certificate.json").read_text())["source"]
    assert (source["folder"], source["hub"]) == ("small", f"me/small@{commit}")
    card = ModelCard.load(out / "README.md")
    assert card.data.base_model == "me/small" and card.data.license == "apache-2.0"
    assert "[me/small](https://huggingface.co/me/small)" in card.text and commit in card.text
    assert str(tmp_path) not in card.text
    # Offline now, and again by any of its names.
    server.asked.clear()
    events = [
        json.loads(line) for line in run(f"check {out} --against hub:me/small@{commit} --json").stdout.splitlines()
    ]
    assert not [event for event in events if event["event"] == "note"], "nothing is downloaded twice"
    assert sum(event["event"] == "row" for event in events) == 21
    assert not any("resolve" in path for _, path, _ in server.asked)


def test_a_network_with_its_card_and_terms(server: hub.Hub, tmp_path: Path) -> None:
    assert " -> model-int.onnx\n" in run("plan hub:me/digits/onnx/model.onnx").stdout
    digits.write(tmp_path / "samples.npz", "calibration")
    out = tmp_path / "out.onnx"
    run(f"quantize hub:me/digits/onnx/model.onnx -o {out} --calib {tmp_path}/samples.npz --method rtn")
    card = ModelCard.load(tmp_path / "out.README.md")
    assert (card.data.base_model, card.data.license) == ("me/digits", "mit") and "Digits." in card.text
    assert (tmp_path / "out.LICENSE").read_text() == "terms\n"


def test_a_wrong_revision_is_one_line(server: hub.Hub, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["plan", "hub:me/small@v2"], catch_exceptions=False)
    assert result.exit_code == 2
    assert result.stderr == "bitwright: hub:me/small@v2: there is no revision 'v2'. Did you mean v1? Or give a commit\n"
