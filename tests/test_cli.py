"""The command line as people and programs meet it, in processes of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import bitwright
from bitwright.cli import app
from tests import tiny

COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback]
HEAVY = {
    "torch", "transformers", "numpy", "safetensors", "tokenizers", "compressed_tensors", "huggingface_hub",
    "onnx", "onnxruntime", "PIL", "sklearn",
}  # fmt: skip
LISTED = """
import sys
try:
    from bitwright.cli import app
    app(sys.argv[1:])
finally:
    print("modules:", *sys.modules)
"""


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bitwright.cli", *arguments], capture_output=True, text=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make("llama", tmp_path_factory.mktemp("cli") / "source")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["quantize", "--help"], ["quantise"]])
def test_help_is_instant(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LISTED, *arguments], capture_output=True, text=True)
    said, _, listed = done.stdout.rpartition("modules:")
    modules = set(listed.split())
    assert "bitwright.cli" in modules
    assert not modules & HEAVY
    assert said or done.stderr


def test_version() -> None:
    done = call("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"bitwright {bitwright.__version__}\n", "")


def test_every_command_and_option_has_help() -> None:
    group = typer.main.get_command(app)
    assert set(group.commands) >= {"plan", "quantize", "measure", "check", "report", "demo"}  # type: ignore[attr-defined]
    overview = call("--help").stdout
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        assert command.help, name
        assert name in overview
        for option in command.params:
            assert getattr(option, "help", None), f"{name}: {option.name}"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_of_a_command(name: str) -> None:
    done = call(name, "--help")
    assert done.returncode == 0
    assert name in done.stdout
    assert "\x1b" not in done.stdout


def test_a_mistyped_command_is_answered() -> None:
    done = call("quantise")
    assert done.returncode == 2
    assert "Did you mean 'quantize'?" in " ".join(done.stderr.split())


@pytest.mark.slow
def test_plan_in_json(source: Path, tmp_path: Path) -> None:
    done = call("plan", str(source), "--group", "32", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    [plan] = [json.loads(line) for line in done.stdout.splitlines()]
    assert plan["event"] == "plan"
    assert len(plan["quantized"]) == 14
    assert plan["final_bytes"] < plan["source_bytes"]
    assert plan["stored_bits_per_weight"] == 4.5
    assert not list(source.parent.glob("*small*")), "a plan writes nothing"


@pytest.mark.slow
def test_quantize_in_json_and_in_words(source: Path, tmp_path: Path) -> None:
    options = ["--method", "rtn", "--group", "32"]
    machine = call("quantize", str(source), "-o", str(tmp_path / "a"), *options, "--json")
    assert (machine.returncode, machine.stderr) == (0, "")
    events = [json.loads(line) for line in machine.stdout.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "plan"
    assert kinds[-1] == "finished"
    assert kinds.count("row") == 14
    assert {event["phase"] for event in events if event["event"] == "started"} == {"quantize", "certify"}
    progress = [event for event in events if event["event"] == "progress"]
    assert all(0 <= event["done"] <= event["total"] for event in progress)
    assert events[-1]["certificate"] == json.loads((tmp_path / "a" / "certificate.json").read_text())
    assert Path(events[-1]["out"]) == tmp_path / "a"
    planned = events[0]["final_bytes"]
    assert planned == sum(path.stat().st_size for path in (tmp_path / "a").glob("*.safetensors"))

    people = call("quantize", str(source), "-o", str(tmp_path / "b"), *options)
    assert (people.returncode, people.stderr) == (0, "")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", people.stdout), "escape codes or carriage returns"
    assert people.stdout.startswith(f"plan: {source} -> ")
    assert people.stdout.endswith(f"written: {tmp_path / 'b'}\n")
    assert len(people.stdout.splitlines()) < 60

    again = call("quantize", str(source), "-o", str(tmp_path / "b"), *options, "--json")
    assert again.returncode == 2
    assert json.loads(again.stdout)["event"] == "error"
    assert "the output exists" in again.stderr
