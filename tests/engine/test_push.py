"""Outputs go to a hub, after a fresh check. The hub is tests/hub.py, on this machine."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import bitwright as bw
from bitwright.cli import app
from bitwright.errors import InputError, ModelError
from bitwright.models.demos import digits
from tests import hub

# huggingface_hub hands files to its transport by an argument that has another name now.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
CONTENT = Path(bw.__file__).parent / "content"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model `out` and the network `net.onnx`, made of the bundled ones."""
    home = tmp_path_factory.mktemp("push")
    source = shutil.copytree(CONTENT / "demo-model", home / "model")
    (source / "extra").mkdir()
    (source / "extra" / "processor_config.json").write_text("{}")
    text = home / "text.txt"
    text.write_text("one two three four five six seven eight nine ten. " * 200)
    words: dict[str, Any] = dict(windows=8, length=16, heldout="stdlib", heldout_windows=2)
    bw.quantize(source, home / "out", method="rtn", calib=[f"{text}:3", "stdlib"], **words)
    shutil.copy(CONTENT / "digits" / "model.onnx", home / "float.onnx")
    (home / "LICENSE").write_text("terms\n")
    digits.write(home / "samples.npz", "calibration")
    bw.quantize(home / "float.onnx", home / "net.onnx", method="rtn", calib=str(home / "samples.npz"))
    return home


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub.Hub]:
    with hub.served() as found:
        hub.use(found, tmp_path / "home", monkeypatch)
        yield found


def run(*words: object) -> Any:
    return CliRunner().invoke(app, ["push", *map(str, words)], catch_exceptions=False)


def changed(server: hub.Hub) -> list[str]:
    """What was asked that is no mere look."""
    return [path for method, path, _ in server.asked if method not in ("GET", "HEAD")]


def test_the_very_bytes_arrive(outputs: Path, server: hub.Hub) -> None:
    result = run(outputs / "out", "me/tiny", "--yes")
    assert result.exit_code == 0, result.output
    assert server.tree("me/tiny") == hub.read(outputs / "out") | {".gitattributes": b""}
    assert "extra/processor_config.json" in server.tree("me/tiny")
    assert not server.repositories["me/tiny"].private
    lines = result.stdout.splitlines()
    at = lines.index(f"{outputs / 'out'} -> {server.url}/me/tiny (a new repository is public)")
    listed = lines[at + 1 : -1]
    assert [line.split()[-1] for line in listed[:-2]] == sorted(hub.read(outputs / "out"))
    assert any("model.safetensors" in line and "MB" in line for line in listed)
    assert listed[-1] == f"  note: the certificate's recipe names paths of this machine: {outputs / 'text.txt'}:3"
    assert lines[-1] == f"pushed: {server.url}/me/tiny/commit/{server.repositories['me/tiny'].refs['main']}"
    assert any(line.startswith("  + certificate") or "as certified" in line for line in lines[:at]), "it was checked"


def test_what_is_there_already_is_not_sent_again(outputs: Path, server: hub.Hub) -> None:
    bw.push(outputs / "out", "me/tiny", watch=False)
    server.asked.clear()
    bw.push(outputs / "out", "me/other", private=True, revision="int4", watch=False)
    assert server.repositories["me/other"].private
    assert server.tree("me/other", "int4") == hub.read(outputs / "out") | {".gitattributes": b""}
    assert server.tree("me/other") == {".gitattributes": b""}
    assert not any(path.startswith("/objects") for path in changed(server))


@pytest.mark.slow
def test_stopped_it_leaves_the_repository_as_it_was_and_goes_on(outputs: Path, server: hub.Hub, tmp_path: Path) -> None:
    arrives, goes_on = server.held = threading.Event(), threading.Event()
    words = [sys.executable, "-m", "bitwright", "push", str(outputs / "out"), "me/tiny", "--yes"]
    settings = os.environ | hub.settings(server, tmp_path)
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=settings,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )  # fmt: skip
    try:
        assert arrives.wait(300)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=300)[1]
    finally:
        process.kill()
        process.wait()
        goes_on.set()
    assert process.returncode == 130
    assert said == b"bitwright: stopped; finished work is kept, and the same command continues\n"
    assert server.tree("me/tiny") == {".gitattributes": b""}
    assert run(outputs / "out", "me/tiny", "--yes").exit_code == 0
    assert server.tree("me/tiny") == hub.read(outputs / "out") | {".gitattributes": b""}


def test_a_network_and_its_card_terms_and_certificate(outputs: Path, server: hub.Hub) -> None:
    result = run(outputs / "net.onnx", "me/net", "--yes", "--json")
    assert result.exit_code == 0
    here = {"README.md": "net.README.md", "LICENSE": "net.LICENSE"}
    names = ("README.md", "LICENSE", "net.onnx", "net.certificate.json", ".gitattributes")
    assert sorted(server.tree("me/net")) == sorted(names)
    for name in names[:-1]:
        assert server.tree("me/net")[name] == (outputs / here.get(name, name)).read_bytes()
    told = {event["event"]: event for event in map(json.loads, result.stdout.splitlines())}
    assert told["upload"]["files"]["net.onnx"] == (outputs / "net.onnx").stat().st_size
    assert told["pushed"]["url"].startswith(f"{server.url}/me/net/commit/")


def test_another_hub_by_its_address(outputs: Path, server: hub.Hub) -> None:
    with hub.served() as other:
        assert run(outputs / "net.onnx", "me/net", "--yes", "--endpoint", f"{other.url}/").exit_code == 0
        assert "net.onnx" in other.tree("me/net") and not server.asked


# ---- refused --------------------------------------------------------------------------------


def copied(outputs: Path, folder: Path) -> Path:
    return shutil.copytree(outputs / "out", folder / "out")


def damaged(out: Path) -> None:
    with (out / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))


def forged(out: Path) -> None:
    certificate = json.loads((out / "certificate.json").read_text())
    certificate["verdict"]["kl"] = 0.0
    (out / "certificate.json").write_text(json.dumps(certificate))


def bare(out: Path) -> None:
    (out / "certificate.json").unlink()


def cut(out: Path) -> None:
    os.truncate(out / "model.safetensors", 1000)


@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (damaged, "model.safetensors is not the certified file"),
        (forged, "is not the certificate that README.md names"),
        (bare, "has no certificate.json"),
        (cut, "not a whole safetensors file"),
    ],
)
def test_what_is_not_as_certified_is_not_sent(
    spoil: Any, part: str, outputs: Path, server: hub.Hub, tmp_path: Path
) -> None:
    out = copied(outputs, tmp_path)
    spoil(out)
    result = run(out, "me/tiny", "--yes")
    assert result.exit_code == 2 and part in result.stderr, result.output
    assert len(result.stderr.splitlines()) == 1 and not server.asked


def test_errors_of_the_hub_are_one_line(outputs: Path, server: hub.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    net = outputs / "net.onnx"

    def fault(*words: str) -> str:
        result = run(net, *words, "--yes")
        assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1, result.output
        return str(result.stderr)

    server.add("me/public", {"x": b""})
    assert "exists and is public" in fault("me/public", "--private")
    assert server.tree("me/public") == {"x": b""}
    assert "forbids it" in fault("others/net") and "others/net" not in server.repositories
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "does not accept the token" in fault("me/net") and "hf auth login" in fault("me/net")
    monkeypatch.setenv("HF_TOKEN", hub.TOKEN)
    server.refuse = (500, "out of order")
    assert "answers 500 (" in fault("me/net")
    server.refuse = None
    assert "is not reached" in fault("me/net", "--endpoint", hub.NOBODY.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in fault("me/net")
    assert "me/net" not in server.repositories


def test_what_could_never_be_sent_never_touches_the_network(
    outputs: Path, server: hub.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, part in (
        (["net"], "not a repository's name"),
        (["me/net/onnx"], "not a repository's name"),
        (["me/net", "--endpoint", "hub.my.org"], "not an address"),
        (["me/net", "--revision", "a b"], "not a branch's name"),
    ):
        result = run(outputs / "net.onnx", *words, "--yes")
        assert result.exit_code == 2 and part in result.stderr
    nobody = run(outputs / "net.onnx", "me/net")
    assert nobody.exit_code == 2 and "Give --yes" in nobody.stderr
    monkeypatch.delenv("HF_TOKEN")
    without = run(outputs / "net.onnx", "me/net", "--yes")
    assert without.exit_code == 2 and "there is no token" in without.stderr and "hf auth login" in without.stderr
    assert not server.asked
    assert "Did you mean 'push'" in CliRunner().invoke(app, ["psuh"]).stderr


def test_metadata_that_the_hub_refuses_are_named(outputs: Path, server: hub.Hub, tmp_path: Path) -> None:
    out = copied(outputs, tmp_path)
    card = (out / "README.md").read_text()
    (out / "README.md").write_text(card.replace("license: apache-2.0", "license: unheard-of"))
    result = run(out, "me/tiny", "--yes")
    assert result.exit_code == 2 and '"license" must be one of' in result.stderr, result.output
    assert len(result.stderr.splitlines()) == 1
    assert "README.md" not in server.tree("me/tiny")


def test_what_is_no_hub_is_one_line(outputs: Path, server: hub.Hub) -> None:
    server.refuse = (200, "<html>Welcome</html>")
    result = run(outputs / "net.onnx", "me/net", "--yes")
    assert result.exit_code == 2 and "may be no hub" in result.stderr, result.output
    assert len(result.stderr.splitlines()) == 1


def test_weights_of_another_model_in_the_repository_stop_it(outputs: Path, server: hub.Hub) -> None:
    earlier = {"model-00001-of-00002.safetensors": b"1", "model.safetensors.index.json": b"{}", "x.txt": b""}
    server.add("me/tiny", earlier)
    result = run(outputs / "out", "me/tiny", "--yes")
    assert result.exit_code == 2 and ", ".join(sorted(earlier)[:2]) in result.stderr, result.output
    assert server.tree("me/tiny") == earlier
    assert run(outputs / "net.onnx", "me/tiny", "--yes").exit_code == 0, "a network is another thing"


def test_a_file_that_the_repository_ignores_is_missed(outputs: Path, server: hub.Hub) -> None:
    server.add("me/net", {}, ignored={"net.certificate.json"})
    with pytest.raises(InputError, match=r"net.certificate.json is not in the commit.*gitignore"):
        bw.push(outputs / "net.onnx", "me/net", watch=False)


def test_whoever_does_not_agree_sends_nothing(outputs: Path, server: hub.Hub, tmp_path: Path) -> None:
    def never(ready: Any) -> None:
        assert ready.bytes == sum(path.stat().st_size for path in ready.files.values())
        raise ModelError("no")

    with pytest.raises(ModelError):
        bw.push(outputs / "net.onnx", "me/net", agree=never, watch=False)
    mine, theirs = pty.openpty()
    words = [sys.executable, "-m", "bitwright", "push", str(outputs / "net.onnx"), "me/net"]
    settings = os.environ | hub.settings(server, tmp_path)
    process = subprocess.Popen(words, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=settings)
    os.write(mine, b"n\n")
    said, wrong = process.communicate(timeout=120)
    os.close(mine)
    os.close(theirs)
    assert (
        process.returncode == 1
        and b"Upload?" in said
        and wrong == (b"bitwright: not confirmed: nothing was uploaded\n")
    )
    assert not server.asked
