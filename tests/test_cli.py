"""The command line as people and programs meet it, in processes of its own."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import bitwright
from bitwright.cli import app
from bitwright.cli.app import Show
from bitwright.events import Progress
from tests import tiny

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
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


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["quantise"], *([name, "--help"] for name in COMMANDS)], ids=" ".join
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LISTED, *arguments], capture_output=True, text=True)
    said, _, listed = done.stdout.rpartition("modules:")
    modules = set(listed.split())
    assert "bitwright.cli" in modules
    assert not modules & HEAVY
    assert said or done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["quantize", "--help"], ["check", "--help"]], ids=" ".join)
def test_help_takes_less_than_half_a_second(arguments: list[str]) -> None:
    """Of processor time, which does not count what else the machine does; the best of three."""

    def spent() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert call(*arguments).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(spent() for _ in range(3)) < 0.5


def test_help_shows_what_stands_in_brackets() -> None:
    """Rich would take [data] for markup."""
    seen = 0
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        texts = [option.help or "" for option in command.params]
        shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "400"}).output if "[" in str(texts) else ""
        for text in texts:
            for word in re.findall(r"\[[^]]+\]", text):
                assert word in shown, f"{name}: {text}"
                seen += 1
    assert seen >= 2


@pytest.mark.parametrize("words", [[], ["quantize"], ["practice"], ["practice", "show"]], ids=" ".join)
def test_short_help_is_help(words: list[str]) -> None:
    short, long = (CliRunner().invoke(app, [*words, option]) for option in ("-h", "--help"))
    assert (short.exit_code, short.output) == (0, long.output)
    assert short.output.startswith(" ".join(["Usage: bitwright", *words]))


def test_no_option_is_cut_off() -> None:
    assert "--heldout-windows" in CliRunner().invoke(app, ["quantize", "-h"], env={"COLUMNS": "60"}).output


@pytest.mark.parametrize(
    ("words", "offered"),
    [("bitwright quan", "quantize"), ("bitwright quantize m --method gp", "gptq"), ("bitwright list m", ""),
     ("bitwright practice show channel-s", "channel-scales"), ("bitwright check --agai", "--against")],
)  # fmt: skip
def test_a_shell_completes_words(words: str, offered: str) -> None:
    asked = {"_BITWRIGHT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "bitwright"], capture_output=True, text=True, env={**os.environ, **asked}
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, offered.split(), "")


@pytest.mark.parametrize("words", [["list", "formats"], ["--help"], ["practice", "list"]], ids=" ".join)
def test_a_reader_that_has_seen_enough_is_no_error(words: list[str]) -> None:
    """The pipe is closed before a word is written."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "bitwright", *words], stdout=pipe, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_is_an_error() -> None:
    for words in (["list", "formats"], ["-h"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "bitwright", *words], stdout=full, stderr=subprocess.PIPE, text=True
            )
        assert done.returncode == 3
        assert done.stderr.startswith("bitwright: standard output: No space left on device. ")
        assert done.stderr.count("\n") == 1


def test_names_that_the_terminal_cannot_show_are_spelled() -> None:
    """The name of a file may be any bytes, and a terminal may know few letters."""
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    for name, shown in (("\u03bb".encode(), "\\u03bb"), (b"caf\xe9", "caf\\udce9")):
        words = [sys.executable, "-m", "bitwright", "check", name]
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
        assert done.returncode == 1
        assert f"bitwright: {shown}: not sound" in done.stderr
        assert shown in done.stdout


def test_a_progress_bar_shows_names_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`[/conv]` is a layer's name; for Rich it would close a style that was never opened."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    show = Show(as_json=False)
    show.event(Progress("quantize", 1, 2, "[/conv][0]"))
    show.close()
    assert "[/conv][0]" in capsys.readouterr().out


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


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str) -> None:
    done = call(name, "--help")
    assert done.returncode == 0
    assert name in done.stdout
    assert "\x1b" not in done.stdout


def test_a_mistyped_command_is_answered() -> None:
    done = call("quantise")
    assert done.returncode == 2
    assert "Did you mean 'quantize'?" in " ".join(done.stderr.split())


def listed(what: str) -> dict[str, dict[str, Any]]:
    done = CliRunner().invoke(app, ["list", what, "--json"])
    assert (done.exit_code, done.stderr) == (0, "")
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    assert {(entry.pop("event"), entry.pop("list")) for entry in entries} == {("entry", what)}
    words = CliRunner().invoke(app, ["list", what]).stdout
    assert [line.split()[0] for line in words.splitlines() if not line.startswith(" ")] == [e["name"] for e in entries]
    for entry in entries:
        assert re.search(rf"^{re.escape(entry['name'])} +{re.escape(entry['title'])}$", words, re.MULTILINE)
    return {entry["name"]: entry for entry in entries}


def test_list_says_what_the_registries_hold() -> None:
    from bitwright import methods, rewrites
    from bitwright.core import formats
    from bitwright.files import containers
    from bitwright.models import kinds

    found = listed("methods")
    assert list(found) == methods.registry.names()
    assert found["descent"]["options"] == methods.registry.get("descent").options().model_dump()
    assert found["lsq"]["models"] == ["language models", "ONNX networks"]
    assert found["blockwise"]["models"] == ["language models"]
    assert all(method["source"] for method in found.values())
    assert list(listed("formats")) == formats.spans(formats.names())
    assert list(listed("rewrites")) == rewrites.registry.names()
    assert list(listed("models")) == kinds.names()
    found = listed("containers")
    assert list(found) == containers.registry.names()
    assert {kind for container in found.values() for kind in container["models"]} == {k.title for k in kinds.all()}
    assert "int4" in found["compressed-tensors"]["formats"]
    assert "nf4" not in found["compressed-tensors"]["formats"]
    assert all(container["runtimes"] for container in found.values())


def test_list_shows_what_a_plugin_adds() -> None:
    from dataclasses import replace

    from bitwright import methods

    mine = replace(methods.registry.get("rtn"), name="mine", title="My own", source="this test")
    with methods.registry.adding(mine):
        assert listed("methods")["mine"]["source"] == "this test"
    assert "mine" not in listed("methods")


@pytest.mark.parametrize(
    "words", ["practice show {}", "practice start {}", "practice hint {}", "practice run {own} --problem {}"]
)
def test_a_mistyped_problem_is_answered(words: str, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("def f(): ...\n")
    done = CliRunner().invoke(app, words.format("chanel-scales", own=own).split())
    assert (done.exit_code, done.stdout) == (2, "")
    assert "there is no problem 'chanel-scales'. Did you mean channel-scales?" in done.stderr


def test_list_of_something_else() -> None:
    done = CliRunner().invoke(app, ["list", "metods"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "bitwright: list: nothing is listed as 'metods'. Did you mean methods, models?\n"


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
