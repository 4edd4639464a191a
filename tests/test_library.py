"""The library: what the command line does, from Python, with the same bytes and the same errors."""

from __future__ import annotations

import hashlib
import inspect
import json
import pydoc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import bitwright as bw
from bitwright import library
from bitwright.cli import app
from bitwright.errors import BitwrightError, InputError, ModelError, RecipeError, ResourceError
from bitwright.events import Event, Finding, Finished, Progress, Row, Started
from bitwright.models.demos import digits
from tests import tiny

ROOT = Path(__file__).parent.parent
TEXT: dict[str, Any] = {"calib": "stdlib", "windows": 4, "length": 32, "heldout_windows": 2}
LLAMA: dict[str, Any] = {"bits": 4, "group": 32, "method": "gptq", "threads": 1, **TEXT}
DIGITS: dict[str, Any] = {"method": "rtn", "threads": 1}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small language model, the bundled network, and samples for it."""
    folder = tmp_path_factory.mktemp("home")
    tiny.make("llama", folder / "llama")
    (folder / "model.onnx").write_bytes(digits.MODEL.read_bytes())
    digits.write(folder / "samples.npz", "calibration")
    return folder


@pytest.fixture(scope="module")
def quantized(home: Path) -> bw.library.Result:  # type: ignore[name-defined]
    return bw.quantize(home / "llama", home / "out", **LLAMA)


def job(home: Path, kind: str) -> tuple[Path, str, dict[str, Any]]:
    """Source, name of the output and options for a language model, or a network."""
    if kind == "language":
        return home / "llama", "out", LLAMA
    return home / "model.onnx", "out.onnx", {**DIGITS, "calib": str(home / "samples.npz")}


def words(options: dict[str, Any]) -> list[str]:
    """The same options for the command line."""
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def weights(out: Path) -> dict[str, str]:
    """SHA-256 of the weight files of an output."""
    files = [out] if out.is_file() else out.glob("*.safetensors")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(*words: Any) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("kind", ["language", "network"])
def test_the_bytes_are_those_of_the_command_line(kind: str, home: Path, tmp_path: Path) -> None:
    source, name, options = job(home, kind)
    result = bw.quantize(source, tmp_path / name, **options)
    other = tmp_path / "cli" / name
    told = run("quantize", source, "-o", other, *words(options))
    assert told.exit_code == 0, told.output
    assert weights(tmp_path / name) == weights(other)
    certificate = bw.report(other).certificates[0]
    moved = {"peak_memory_bytes", "speed", "rows", "folder"}
    assert {k: v for k, v in result.certificate.items() if k not in moved} == {
        k: v for k, v in certificate.items() if k not in moved
    }
    assert [{**row, "seconds": 0} for row in result.rows] == [{**row, "seconds": 0} for row in certificate["rows"]]
    assert str(result).splitlines()[0] in told.output


@pytest.mark.parametrize("kind", ["language", "network"])
def test_a_plan_is_that_of_the_command_line(kind: str, home: Path) -> None:
    source, _, options = job(home, kind)
    known = {name: value for name, value in options.items() if name not in ("threads", "heldout_windows")}
    planned = bw.plan(source, **known)
    told = json.loads(run("plan", source, *words(known), "--json").output)
    estimated = ("seconds", "peak_memory_bytes")
    assert {k: v for k, v in planned.summary.items() if k not in estimated} == {
        k: v for k, v in told.items() if k not in (*estimated, "event")
    }
    assert str(planned).startswith(f"plan: {source} -> ")


WRONG: list[tuple[dict[str, Any], type[BitwrightError]]] = [
    ({"bits": 9}, RecipeError),
    ({"bits": 4, "format": "nf4"}, RecipeError),
    ({"format": "int44"}, RecipeError),
    ({"method": "descant"}, RecipeError),
    ({"output": "gguf"}, RecipeError),
    ({"group": 48}, BitwrightError),
    ({"calib": "/nowhere.txt", "group": 32}, InputError),
    ({"max_ram": "much", "group": 32}, RecipeError),
    ({"max_ram": "1MB", "group": 32}, ResourceError),
    ({"device": "tpu"}, RecipeError),
    ({"bind": {"height": 4}}, RecipeError),
]


@pytest.mark.parametrize(("options", "kind"), WRONG, ids=lambda value: str(value)[:40])
def test_the_errors_are_those_of_the_command_line(
    options: dict[str, Any], kind: type[BitwrightError], home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(kind) as error:
        bw.quantize(home / "llama", out, **options)
    given = {"to" if name == "output" else name: value for name, value in options.items()}
    if "bind" in given:
        given["bind"] = "height=4"
    told = run("quantize", home / "llama", "-o", out, *words(given))
    assert told.exit_code == error.value.exit_code
    assert told.stderr == f"bitwright: {' '.join(str(error.value).split())}\n"
    assert not out.exists()


def test_an_option_that_does_not_exist_is_a_type_error(home: Path, tmp_path: Path) -> None:
    for call in (bw.plan, bw.quantize):
        with pytest.raises(TypeError, match="no option is called 'bit'"):
            call(home / "llama", tmp_path / "out", bit=4)
    with pytest.raises(TypeError):
        bw.measure(home / "llama", home / "llama", window=4)  # type: ignore[call-arg]
    assert not list(tmp_path.iterdir())


def test_every_option_of_the_command_is_one_of_the_library() -> None:
    import typer.main

    command = typer.main.get_command(app).commands["quantize"]  # type: ignore[attr-defined]
    renamed = {"format_name": "format"}
    options = {renamed.get(param.name, param.name) for param in command.params}
    own = set(inspect.signature(bw.quantize).parameters) | library.OPTIONS
    assert options - {"as_json", "help"} == own - {"options", "watch"}


@pytest.mark.parametrize("kind", ["language", "network"])
def test_a_function_hears_every_event(kind: str, home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, name, options = job(home, kind)
    heard: list[Event] = []
    result = bw.quantize(source, tmp_path / name, **options, watch=heard.append)
    rows = {row.name: row.json() for row in heard if isinstance(row, Row)}
    assert list(map(rows.get, [row["name"] for row in result.rows])) == result.rows
    assert {"quantize", "certify"} <= {event.phase for event in heard if isinstance(event, Started)}
    assert any(isinstance(event, Progress) for event in heard)
    assert isinstance(heard[-1], Finished) and heard[-1].certificate == result.certificate
    found: list[Event] = []
    bw.check(tmp_path / name, watch=found.append)
    assert any(isinstance(event, Finding) for event in found)
    assert capfd.readouterr() == ("", "")


def test_who_hears_of_an_event_may_stop_it(home: Path, tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Row):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bw.quantize(home / "llama", tmp_path / "out", **LLAMA, watch=stop)
    assert not (tmp_path / "out").exists()
    again = bw.quantize(home / "llama", tmp_path / "out", **LLAMA)
    whole = bw.quantize(home / "llama", tmp_path / "whole", **LLAMA)
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")
    assert again.certificate["output"] == whole.certificate["output"]


@pytest.mark.parametrize("kind", ["language", "network"])
def test_a_run_is_stopped_and_goes_on(kind: str, home: Path, tmp_path: Path) -> None:
    source, name, options = job(home, kind)
    steps = bw.plan(source, tmp_path / name, **options).run()
    rows = 0
    for event in steps:
        rows += isinstance(event, Row)
        if rows == 3:
            break
    steps.close()  # type: ignore[attr-defined]
    assert not (tmp_path / name).exists()
    events = list(bw.plan(source, tmp_path / name, **options).run())
    resumed = next(event for event in events if isinstance(event, Started) and event.phase == "quantize")
    assert resumed.resumed >= 3
    whole = tmp_path / "whole" / name
    bw.quantize(source, whole, **options)
    assert weights(tmp_path / name) == weights(whole)


def test_a_bar_only_where_it_is_wanted(home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bw.quantize(home / "llama", tmp_path / "out", bits=4, group=32, method="rtn", **TEXT, watch=True)
    told = capfd.readouterr()
    assert told.out == "" and "quantize 100%" in told.err and "certify" in told.err


def test_a_recipe_is_an_object_a_file_or_tables(home: Path, tmp_path: Path) -> None:
    tables = {"layer": {"format": "int8", "group": 32, "method": "rtn"}}
    recipe = bw.library.Recipe.read(tables, "test")
    (tmp_path / "recipe.toml").write_text(recipe.dumps())
    plans = [bw.plan(home / "llama", recipe=form) for form in (tables, recipe, tmp_path / "recipe.toml")]
    assert len({str(planned) for planned in plans}) == 1
    assert "as int8 g32 by rtn" in str(plans[0])
    assert "as int4 g64 by rtn" in str(bw.plan(home / "llama", recipe=tables, bits=4, group=64))
    assert tables == {"layer": {"format": "int8", "group": 32, "method": "rtn"}}


def test_measure_check_and_report(home: Path, quantized: Any, tmp_path: Path) -> None:
    out = home / "out"
    measured = bw.measure(home / "llama", out, windows=2, length=32)
    told = run("measure", home / "llama", out, "--windows", 2, "--length", 32, "--json").output.splitlines()[-1]
    assert {"event": "comparison", "source": "stdlib", **measured.summary} == json.loads(told)
    checked = bw.check(out, home / "llama")
    assert checked.sound and len(checked.rows) == len(quantized.rows)
    assert str(checked).endswith("\nsound")
    report = bw.report(out)
    for kind, text in (("md", report.markdown), ("json", report.json), ("html", report.html)):
        assert run("report", out, "--format", kind).output == text + "\n"
        assert report.save(tmp_path / f"report.{kind}").read_text("utf-8") == text
    with pytest.raises(InputError, match=r"Use \.md, \.json or \.html"):
        report.save(tmp_path / "report.pdf")
    with pytest.raises(InputError, match="the output exists"):
        report.save(tmp_path / "report.md")
    with pytest.raises(ModelError, match="has no certificate"):
        bw.report(home / "llama")


def test_open(home: Path) -> None:
    model = bw.open(str(home / "llama"))
    assert model.kind.name == "language"
    assert next(part.name for part in model.parts(library.Recipe())).startswith("model.layers.0.")
    assert bw.open(home / "model.onnx").kind.name == "network"
    with pytest.raises(ModelError, match="no such folder"):
        bw.open(home / "nothing")


def test_results_show_themselves(home: Path, quantized: Any) -> None:
    out = home / "out"
    shown = [quantized, bw.plan(home / "llama", group=32), bw.check(out), bw.report(out)]
    shown.append(bw.measure(home / "llama", out, windows=2, length=32))
    for thing in shown:
        assert str(thing) and not str(thing).startswith("<")
        page = thing._repr_html_()
        assert page.startswith("<") and "<script" not in page
    assert "Perplexity" in quantized._repr_html_()
    assert quantized.verdict["tokens"] == 64


def test_every_function_explains_itself() -> None:
    for name in set(bw.__all__) - {"__version__"}:
        function = getattr(bw, name)
        assert f"\n{name}(" in "\n" + pydoc.plain(pydoc.render_doc(function)).split("\n\n", 1)[1]
        assert len(inspect.getdoc(function) or "") > 60
        for parameter in inspect.signature(function).parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty
    assert {"plan", "quantize"} <= set(dir(bw))
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        bw.quantise  # noqa: B018


def test_importing_costs_nothing() -> None:
    program = "import sys, bitwright; print(*sys.modules); help(bitwright)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[0].split())
    assert "bitwright" in loaded
    assert not {"torch", "numpy", "transformers", "onnx", "pydantic", "bitwright.library"} & loaded


@pytest.mark.slow
def test_type_checkers_see_the_types() -> None:
    from hatchling.builders.wheel import WheelBuilder

    files = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert {"bitwright/py.typed", "bitwright/library.py"} <= files
