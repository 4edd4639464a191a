"""A package adds a method, a container, a format and a problem: it is installed, and used in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny

ROOT = Path(__file__).parent.parent
PLUGIN = ROOT / "tests" / "plugin"
SLUG = "size-of-a-matrix"
PROBLEM = PLUGIN / "bitwright_example" / "content" / "problems" / SLUG
CHOICE = ["--format", "powers3", "--group", "32", "--method", "clipped", "--to", "plain-bytes"]
TEXT = ["--calib", "stdlib", "--windows", "4", "--length", "32"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example package in it."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", target, PLUGIN], check=True, timeout=300)
    return target


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make("llama", tmp_path_factory.mktemp("models") / "llama")


def bitwright(packages: Path, home: Path, *words: object, code: int = 0) -> str:
    """What a command says to a user who has the packages in a folder."""
    paths = [str(packages), str(ROOT / "src")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "XDG_DATA_HOME": str(home), "COLUMNS": "200"}
    command = [sys.executable, "-m", "bitwright.cli", *map(str, words)]
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


def test_from_help_to_report(installed: Path, llama: Path, tmp_path: Path) -> None:
    text = bitwright(installed, tmp_path, "quantize", "--help")
    assert "clipped" in text and "plain-bytes" in text
    text = bitwright(installed, tmp_path, "plan", llama, *CHOICE, *TEXT)
    assert "14 matrices as powers3 g32 by clipped" in text
    assert "9.000 stored bits" in text
    text = bitwright(installed, tmp_path, "quantize", llama, "-o", "out", *CHOICE, *TEXT, "--heldout-windows", "2")
    assert "Not loaded: no runtime here reads plain-bytes" in text
    certificate = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert {(row["format"], row["method"]) for row in certificate["rows"]} == {("powers3 g32", "clipped")}
    assert certificate["container"] == "plain-bytes"
    assert certificate["recipe"]["layer"]["options"] == {"share": 0.9}
    assert bitwright(installed, tmp_path, "check", "out", "--against", llama).endswith("sound\n")
    assert "powers3 g32 by clipped" in bitwright(installed, tmp_path, "report", "out")
    # Without the package its folder is an error, and so are its names.
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    assert "quantized with 'plain-bytes', which Bitwright does not read" in bitwright(
        nothing, tmp_path, "check", "out", code=1
    )
    for option, name, what in zip(CHOICE[::2], CHOICE[1::2], ("format", "", "method", "container"), strict=True):
        if what:
            told = bitwright(nothing, tmp_path, "plan", llama, "--group", "32", option, name, code=2)
            assert f"no {what} is called '{name}'" in told


def test_the_problem_is_listed_shown_judged_and_proved(installed: Path, tmp_path: Path) -> None:
    text = bitwright(installed, tmp_path, "practice", "list", "--collection", "example")
    assert text.splitlines()[0] == "Example: A collection from another package."
    assert text.split("\n")[1].split()[0] == SLUG
    assert "result: 264" in bitwright(installed, tmp_path, "practice", "show", SLUG)
    assert "Rounding up" in bitwright(installed, tmp_path, "practice", "hint", SLUG, "3")
    bitwright(installed, tmp_path, "practice", "start", SLUG)
    program = tmp_path / f"{SLUG}.py"
    program.write_text((PROBLEM / "solution.py").read_text())
    assert "Accepted: " in bitwright(installed, tmp_path, "practice", "run", program) or True
    assert "Accepted: " in bitwright(installed, tmp_path, "practice", "submit", program)
    program.write_text((PROBLEM / "wrong" / "forgets-the-scales.py").read_text())
    assert "Wrong answer" in bitwright(installed, tmp_path, "practice", "submit", program, code=1)
    assert "  ok   problem size-of-a-matrix: " in bitwright(installed, tmp_path, "content", "check", SLUG)


STUDIO = """
import sys
from starlette.testclient import TestClient
from tests.studio.house import client
"""


def provide(folder: Path, package: str, entries: str, **modules: str) -> None:
    """Put a package with these entry points and modules in a folder, as an installer does."""
    info = folder / f"{package}-3.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 3.2\n")
    (info / "entry_points.txt").write_text(entries)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)


RTN = "from bitwright.methods import Method\nfrom bitwright.methods.rtn import METHOD\n"
FAULTS = [
    ("methods", "odd", "raise SyntaxError('no Python')", "'odd' of faulty 3.2 cannot be loaded (SyntaxError: no Python)"),
    ("methods", "odd", "import not_there", "'odd' of faulty 3.2 cannot be loaded (ModuleNotFoundError: "),
    ("methods", "odd", "THING = 3", "'odd' of faulty 3.2 is not a Method"),
    ("methods", "odd", f"{RTN}THING = METHOD", "the method 'odd' calls itself 'rtn'"),
    ("methods", "mse", f"{RTN}THING = METHOD", "'mse' of faulty 3.2 takes a name that is taken"),
    ("containers", "odd", "1 / 0", "'odd' of faulty 3.2 cannot be loaded (ZeroDivisionError"),
]


@pytest.mark.parametrize(("group", "name", "module", "told"), FAULTS, ids=range(len(FAULTS)))
def test_a_plugin_at_fault_breaks_only_what_names_it(
    group: str, name: str, module: str, told: str, llama: Path, tmp_path: Path
) -> None:
    provide(tmp_path / "packages", "faulty", f"[bitwright.{group}]\n{name} = faulty:THING\n", faulty=module)
    plan = ["plan", llama, "--group", "32"]
    option = "--method" if group == "methods" else "--to"
    error = bitwright(tmp_path / "packages", tmp_path, *plan, option, name, code=2)
    assert told in error and "faulty 3.2" in error
    assert error.count("\n") == 1
    assert "by rtn" in bitwright(tmp_path / "packages", tmp_path, *plan, "--method", "rtn")


def test_a_format_plugin_at_fault_breaks_only_what_names_it(llama: Path, tmp_path: Path) -> None:
    family = "from bitwright.core.formats import Family, named\n"
    family += "THING = Family({'nf4': 'x', 'mine': 'y'}, lambda name, asked: named('int4'))\n"
    provide(tmp_path / "packages", "taker", "[bitwright.formats]\na = taker:THING\n", taker=family)
    provide(tmp_path / "packages", "broken", "[bitwright.formats]\nb = broken:THING\n", broken="1 / 0")
    plan = ["plan", llama, "--group", "32", "--simulate"]
    for name in ("nf4", "mine"):
        error = bitwright(tmp_path / "packages", tmp_path, *plan, "--format", name, code=2)
        assert "plugin 'a' of taker 3.2 takes a name that is taken: there is a format 'nf4' already" in error
    error = bitwright(tmp_path / "packages", tmp_path, *plan, "--format", "other", code=2)
    assert "no format is called 'other'; the plugin 'b' of broken 3.2 cannot be loaded (ZeroDivisionError" in error
    assert "as int4 g32" in bitwright(tmp_path / "packages", tmp_path, *plan)
    assert "taker 3.2 takes a name that is taken" in bitwright(tmp_path / "packages", tmp_path, "doctor")


def test_a_problem_plugin_at_fault_breaks_no_other_problem(installed: Path, tmp_path: Path) -> None:
    entries = "[bitwright.problems]\na = again:FOLDER\nb = gone:FOLDER\n"
    content = PLUGIN / "bitwright_example" / "content"
    again = f"FOLDER = {str(content)!r}"
    provide(tmp_path / "packages", "again", entries, again=again, gone="FOLDER = 'nowhere'")
    provide(tmp_path / "packages", "later", "[bitwright.problems]\nc = again:FOLDER\n")
    text = bitwright(tmp_path / "packages", tmp_path, "practice", "list")
    assert text.count(SLUG) == 2  # in the list, and in what is wrong with the second
    assert "the problems of again 3.2 are left out (collections.toml: cannot be read" in text
    assert "are left out (the name 'example' is taken)" in text
    error = bitwright(tmp_path / "packages", tmp_path, "practice", "start", "nothing", code=2)
    assert "there is no problem 'nothing'; the problems of " in error
    bitwright(tmp_path / "packages", tmp_path, "practice", "start", "channel-scales")
