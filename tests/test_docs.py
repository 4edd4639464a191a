"""What the documents say is true: recipes load, defaults are the defaults, commands and options exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bitwright.cli import app
from bitwright.recipe import Recipe

ROOT = Path(__file__).parent.parent


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


@pytest.mark.parametrize("document", ["README.md", "docs/recipes.md", "docs/benchmarks.md"])
def test_every_option_named_in_a_document_exists(document: str) -> None:
    helps = "".join(
        CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "400"}).output
        for command in ("plan", "quantize", "measure", "check", "report", "demo")
    )
    text = re.sub(r"^.*(bench/|make|pytest).*$", "", (ROOT / document).read_text("utf-8"), flags=re.MULTILINE)
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--help", "--version"}:
        assert option in helps, f"{document} names {option}"
