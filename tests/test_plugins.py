"""A package adds a method, a container, a format and a problem: it is installed, and used in processes of their own."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bitwright import methods
from bitwright.authoring.folder import CONTENT
from bitwright.cli import app
from bitwright.core import formats
from bitwright.errors import RecipeError
from bitwright.judge.problem import ProblemError, Shelf
from bitwright.methods import Method
from bitwright.plugins import plugins
from bitwright.recipe import Recipe
from bitwright.registry import Registry
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


@pytest.mark.slow
def test_from_help_to_report(installed: Path, llama: Path, tmp_path: Path) -> None:
    text = bitwright(installed, tmp_path, "quantize", "--help")
    assert "clipped" in text and "plain-bytes" in text
    text = bitwright(installed, tmp_path, "plan", llama, *CHOICE, *TEXT)
    assert "14 matrices as powers3 g32 by clipped" in text
    assert "9.000 per quantized weight" in text
    text = bitwright(installed, tmp_path, "quantize", llama, "-o", "out", *CHOICE, *TEXT, "--heldout-windows", "2")
    assert "Not loaded: no runtime here reads plain-bytes" in text
    certificate = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert {(row["format"], row["method"]) for row in certificate["rows"]} == {("powers3 g32", "clipped")}
    assert certificate["container"] == "plain-bytes"
    assert certificate["recipe"]["layer"]["options"] == {"share": 0.9}
    assert bitwright(installed, tmp_path, "check", "out", "--against", llama).endswith("sound\n")
    assert "powers3 g32 by clipped" in bitwright(installed, tmp_path, "report", "out")
    # Without the package nobody here knows its folder, and its names are errors.
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    assert "quantized with 'plain-bytes', which Bitwright does not read" in bitwright(nothing, tmp_path, "check", "out")
    assert "no method is called 'clipped'" in bitwright(nothing, tmp_path, "plan", llama, *CHOICE, code=2)


@pytest.mark.slow
def test_the_problem_is_listed_shown_judged_and_proved(installed: Path, tmp_path: Path) -> None:
    text = bitwright(installed, tmp_path, "practice", "list", "--collection", "example")
    assert text.splitlines()[0] == "Example: A collection from another package."
    assert text.split("\n")[1].split()[0] == SLUG
    assert "result: 264" in bitwright(installed, tmp_path, "practice", "show", SLUG)
    program = tmp_path / f"{SLUG}.py"
    program.write_text((PROBLEM / "solution.py").read_text())
    assert "Accepted: " in bitwright(installed, tmp_path, "practice", "submit", program)
    program.write_text((PROBLEM / "wrong" / "forgets-the-scales.py").read_text())
    assert "Wrong answer" in bitwright(installed, tmp_path, "practice", "submit", program, code=1)
    assert "  ok   problem size-of-a-matrix: " in bitwright(installed, tmp_path, "content", "check", SLUG)


STUDIO = """
import sys
from pathlib import Path
from starlette.testclient import TestClient
from bitwright.studio.shell.app import create
from bitwright.studio.shell.config import Config

slug, code = sys.argv[1:]
own = {"origin": "http://127.0.0.1:8737"}
app = create(Config(data=Path("data")))
with TestClient(app, base_url=own["origin"], headers=own) as client:
    assert slug in client.get("/practice").text
    assert client.get(f"/api/practice/{slug}/ready").json() == {"ready": True}
    assert "Size of a matrix" in client.get(f"/practice/{slug}").text
    print(client.post(f"/api/practice/{slug}/submit", json={"code": Path(code).read_text()}).text)
"""


@pytest.mark.slow
def test_the_studio_has_the_problem(installed: Path, tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), str(ROOT / "src")])}
    command = [sys.executable, "-c", STUDIO, SLUG, PROBLEM / "solution.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.strip().splitlines()[-1].removeprefix("data: "))["verdict"] == "AC"


# Packages at fault


@pytest.fixture
def provide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Puts a package with entry points and one module where Python looks for packages, as an installer does."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def put(package: str, entries: str, module: str = "") -> None:
        info = tmp_path / f"{package}-3.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 3.2\n")
        (info / "entry_points.txt").write_text(entries)
        (tmp_path / f"{package}.py").write_text(module)
        made.append(package)
        forget()

    def forget() -> None:
        importlib.invalidate_caches()
        plugins.cache_clear()
        formats._others.cache_clear()

    yield put
    monkeypatch.undo()
    for package in made:
        sys.modules.pop(package, None)
    forget()


RTN = "from bitwright.methods.rtn import METHOD\n"
FAULTS = [
    ("odd", "raise SyntaxError('no Python')", "'odd' of faulty 3.2 cannot be loaded (SyntaxError: no Python). Update"),
    ("odd", "import not_there", "'odd' of faulty 3.2 cannot be loaded (ModuleNotFoundError: "),
    ("odd", "THING = 3", "'odd' of faulty 3.2 is not a Method (faulty:THING)"),
    ("odd", f"{RTN}THING = METHOD", "faulty 3.2: the method 'odd' calls itself 'rtn'"),
    ("mse", f"{RTN}THING = METHOD", "'mse' of faulty 3.2 uses a name that is taken: there is a method 'mse' already"),
]


@pytest.mark.parametrize(("name", "module", "told"), FAULTS)
def test_a_plugin_at_fault_breaks_only_what_names_it(
    name: str, module: str, told: str, provide: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    provide("faulty", f"[bitwright.methods]\n{name} = faulty:THING\n", module)
    registry: Registry[Method] = Registry(Method, "bitwright.methods", "METHOD", key="layer.method")
    assert name in registry.names()
    for _ in range(2):
        with pytest.raises(RecipeError) as error:
            registry.get(name)
        assert told in str(error.value)
    assert registry.get("rtn").name == "rtn"
    assert {"rtn", "gptq"} <= {method.name for method in registry.all()}
    assert name not in {method.name for method in registry.all()}
    assert told in str(registry.faults()[name])
    monkeypatch.setattr(methods, "registry", registry)
    with pytest.raises(RecipeError) as error:
        Recipe.read({"layer": {"method": name}}, "test")
    assert told in str(error.value)
    assert Recipe.read({"layer": {"method": "rtn"}}, "test").layer.method == "rtn"
    assert told in CliRunner().invoke(app, ["doctor"]).stdout


def test_two_packages_with_one_name_are_told_apart_by_neither(provide: Callable[..., None]) -> None:
    module = "from bitwright.methods import Method\nTHING = Method('same', '', '', print)\n"
    for package in ("one", "two"):
        provide(package, f"[bitwright.methods]\nsame = {package}:THING\n", module)
    registry: Registry[Method] = Registry(Method, "bitwright.methods", "METHOD")
    with pytest.raises(RecipeError, match=r"'same' of (one|two) 3.2 uses a name that is taken"):
        registry.get("same")


def test_a_faulty_format_breaks_only_what_names_it(provide: Callable[..., None]) -> None:
    family = "from bitwright.core.formats import Family, named\n"
    family += "THING = Family({'nf4': 'x', 'mine': 'y'}, lambda name, asked: named('int4'))\n"
    provide("taker", "[bitwright.formats]\na = taker:THING\n", family)
    provide("broken", "[bitwright.formats]\nb = broken:THING\n", "1 / 0")
    for name in ("nf4", "mine"):
        with pytest.raises(RecipeError, match=r"'a' of taker 3.2 uses a name that is taken: there is a format 'nf4'"):
            formats.named(name)
    with pytest.raises(RecipeError, match=r"no format is called 'other'.*'b' of broken 3.2 cannot be loaded \(Zero"):
        formats.named("other")
    assert formats.named("int4").bits == 4
    assert len(formats.faults()) == 2


def test_faulty_problems_break_no_others(provide: Callable[..., None]) -> None:
    content = PLUGIN / "bitwright_example" / "content"
    provide("again", "[bitwright.problems]\na = again:FOLDER\n", f"FOLDER = {str(content)!r}")
    provide("later", "[bitwright.problems]\nb = later:FOLDER\n", f"FOLDER = {str(content)!r}")
    provide("gone", "[bitwright.problems]\nc = gone:FOLDER\n", "FOLDER = 'nowhere'")
    shelf = Shelf(CONTENT)
    assert shelf.slugs.count(SLUG) == 1 and SLUG in shelf
    assert shelf.problem(SLUG).title == "Size of a matrix"
    faults = "\n".join(shelf.faults)
    assert len(shelf.faults) == 2
    assert "are left out (the name 'example' is taken)" in faults
    assert "the problems of gone 3.2 are left out (collections.toml: cannot be read" in faults
    text = CliRunner().invoke(app, ["practice", "list"]).stdout
    assert SLUG in text and "channel-scales" in text
    assert "gone 3.2 are left out" in text
    with pytest.raises(ProblemError, match="there is no problem 'nothing'; the problems of "):
        shelf.problem("nothing")
