"""What the documents say is true: examples run, commands and options exist, links and paths lead somewhere.

Dead links inside the site are found by `make docs`. A Python block that cannot run here has a comment before it that
says why: `<!-- not run: needs a GPU -->`. Blocks of a page run in order, with the same names, in a folder that holds
MODEL (the bundled language model), text.txt and OUT (the model quantized), and model.onnx (the bundled digits network),
samples.npz and out.onnx (the network quantized).
"""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from bitwright.cli import app
from bitwright.recipe import Recipe

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "bitwright"
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("**/*.md"))]
UsageError: Any = typer.BadParameter.__base__


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, what it is, and the reason where it says that it is not run."""

    where: str
    language: str
    text: str
    not_run: str | None


def blocks(document: Path) -> Iterator[Block]:
    text = document.read_text("utf-8")
    fence = (
        r"(?:<!-- not run: (?P<reason>[^>]+?) -->\s*\n)?^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^ *```$"
    )
    for found in re.finditer(fence, text, re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, found.start("text")) + 1
        body = re.sub(f"^{found['indent']}", "", found["text"], flags=re.MULTILINE)
        yield Block(f"{name(document)}:{line}", found["language"], body, found["reason"])


def without_blocks(document: Path) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", document.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


# Recipes


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_example_recipes_load_and_survive_a_round_trip(path: Path) -> None:
    recipe = Recipe.load(path)
    assert recipe != Recipe() or path.stem == "w4a16"
    assert Recipe.loads(recipe.dumps()) == recipe


def test_the_documented_defaults_are_the_defaults() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    block = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert block
    assert Recipe.loads(block[1]).model_copy(update={"rules": ()}) == Recipe()


def test_the_documented_judgements_are_those_of_the_report() -> None:
    from bitwright.engine.report.judgement import JUDGEMENTS, SCALES

    text = (ROOT / "docs" / "quickstart.md").read_text("utf-8")
    table = re.search(r"\| mean KL at most .*\n.*\n((?:\|.*\n)+)", text)
    assert table
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table[1].splitlines()]
    assert [words for _, words in rows] == [judgement.words for judgement in JUDGEMENTS]
    assert [float(limit) for limit, _ in rows[:-1]] == list(SCALES["kl"].limits)


@pytest.mark.parametrize(
    "document", [d for d in DOCUMENTS if d.stem in ("networks", "quickstart", "recipes")], ids=name
)
def test_every_piece_of_a_recipe_in_a_document_is_valid(document: Path) -> None:
    for block in blocks(document):
        if block.language == "toml":
            Recipe.loads(block.text)


# Commands


def commands() -> Any:
    return typer.main.get_command(app)


def options(command: Any) -> set[str]:
    found = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    return found.union(*(options(child) for child in getattr(command, "commands", {}).values()))


@every_document
def test_every_option_named_in_a_document_exists(document: Path) -> None:
    text = re.sub(r"^.*(bench/|make|pytest|pip|vllm).*$", "", document.read_text("utf-8"), flags=re.MULTILINE)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    assert named <= options(commands()) | {"--help"}


def command_lines(document: Path) -> Iterator[tuple[str, str, bool]]:
    """(place, words after `bitwright`, whether it is a whole command) of each command in blocks and in sentences."""
    for block in blocks(document):
        if block.language in ("", "console", "sh"):
            for line in block.text.replace("\\\n", " ").splitlines():
                if found := re.match(r"(?:\$ )?(?:\.venv/bin/)?bitwright ([a-z-].*)", line):
                    yield block.where, found[1], True
    for found in re.finditer(r"`bitwright ([a-z-][^`]*)`", without_blocks(document)):
        yield name(document), found[1], False


def parse(line: str, whole: bool) -> None:
    """Parse a command line as the program does, without running it; a UsageError where it cannot be read."""
    words = shlex.split(re.sub(r"\[|\]|\.\.\.", "", line), comments=True)
    command, path = commands(), ["bitwright"]
    while words and words[0] in getattr(command, "commands", {}):
        path.append(words.pop(0))
        command = command.commands[path[-1]]
    if hasattr(command, "commands"):
        assert not words or words[0].startswith("-"), f"no such command: {' '.join([*path, *words])}"
        if not words:
            return
    try:
        command.make_context(" ".join(path), words)
    except typer.Exit:
        pass  # --help and --version
    except UsageError as error:
        if whole or type(error).__name__ != "MissingParameter":
            raise


@every_document
def test_every_command_in_a_document_can_be_read_by_the_program(document: Path, capsys: Any) -> None:
    for where, line, whole in command_lines(document):
        try:
            parse(line, whole)
        except UsageError as error:
            pytest.fail(f"{where}: bitwright {line}\n{error.format_message()}")


@pytest.mark.parametrize("line", ["quantise MODEL -o OUT", "quantize MODEL --bit 4 -o OUT", "plan MODEL --bits four"])
def test_a_wrong_command_would_be_found(line: str) -> None:
    with pytest.raises((AssertionError, UsageError)):
        parse(line, whole=True)


# Links and paths


def anchors(document: Path) -> set[str]:
    """The anchors of a page's headings, as MkDocs and GitHub make them."""
    titles = re.findall(r"^#+ (.+)$", without_blocks(document), re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


@pytest.mark.parametrize("document", sorted(ROOT.glob("*.md")), ids=name)
def test_links_of_the_files_beside_the_site_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(document)):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            page = document.parent / path if path else document
            assert page.exists(), target
            assert not anchor or anchor in anchors(page), target


@every_document
def test_every_source_file_named_in_a_document_exists(document: Path) -> None:
    if document.stem in ("CHANGELOG", "log"):
        return  # of their day
    for path in re.findall(r"`((?:[\w.-]+/)+[\w-]+\.(?:py|toml|ts|sh))`", document.read_text("utf-8")):
        places = (ROOT, SOURCE, SOURCE / "studio", document.parent)
        assert any((place / path).exists() for place in places), f"{name(document)}: {path}"


def test_the_example_package_is_quoted_as_it_is() -> None:
    text = (ROOT / "docs" / "library.md").read_text("utf-8")
    quoted = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', text, re.DOTALL | re.MULTILINE))
    folder = ROOT / "tests" / "plugin"
    assert {path.name for path in (folder / "bitwright_example").glob("[a-z]*.py")} <= {
        Path(name).name for name in quoted
    }
    for path, text in quoted.items():
        assert text == (folder / path).read_text("utf-8"), path


# Examples


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundled models, some data, and what the command line makes of them."""
    from bitwright.models.demos import digits

    home = tmp_path_factory.mktemp("examples")
    shutil.copytree(SOURCE / "content" / "demo-model", home / "MODEL")
    shutil.copy(SOURCE / "content" / "digits" / "model.onnx", home / "model.onnx")
    digits.write(home / "samples.npz", "calibration")
    (home / "text.txt").write_text(Path(re.__file__).read_text("utf-8"), "utf-8")
    for source, data, out, more in (
        ("MODEL", "text.txt", "OUT", ("--method", "rtn", "--length", "64", "--heldout-windows", "2")),
        ("model.onnx", "samples.npz", "out.onnx", ("--method", "rtn")),
    ):
        words = ["quantize", str(home / source), "--calib", str(home / data), "-o", str(home / out), *more]
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    return home


def runnable(document: Path) -> list[Block]:
    return [block for block in blocks(document) if block.language == "python" and not block.not_run]


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if runnable(document)], ids=name)
def test_the_python_in_a_document_runs(
    document: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    todo = runnable(document)
    if any(re.search(r"MODEL|OUT|\.onnx|text\.txt|\.npz", block.text) for block in todo):
        for path in request.getfixturevalue("quantized").iterdir():
            (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "example"}
    for block in todo:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries that an example calls
            exec(compile(block.text, block.where, "exec"), names)


def examples() -> list[str]:
    """Modules with an example in a docstring."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        if not {"content", "web", "built"} & set(parts) and ">>> " in path.read_text("utf-8"):
            found.append(".".join(part for part in parts if part != "__init__"))
    return found


@pytest.mark.parametrize("module", examples())
def test_the_examples_in_docstrings_are_right(module: str, capsys: Any) -> None:
    outcome = doctest.testmod(importlib.import_module(module))
    assert outcome.attempted
    assert not outcome.failed, capsys.readouterr().out
