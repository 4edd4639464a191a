"""Files with one recipe, and with a grid of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bitwright.engine.sweep import recipes
from bitwright.errors import RecipeError

GRID = """
[layer]
method = "rtn"
[grid.layer]
format = ["int4", "int3"]
group = [64, "channel"]
"""


def file(folder: Path, text: str, name: str = "some.toml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_grid_is_every_value_with_every_other(tmp_path: Path) -> None:
    found = recipes.read([file(tmp_path, GRID), file(tmp_path, '[layer]\nformat = "int8"', "plain.toml")])
    assert {name: (r.layer.format, r.layer.group) for name, r in found.items()} == {
        "some-int4-64": ("int4", 64), "some-int4-channel": ("int4", "channel"),
        "some-int3-64": ("int3", 64), "some-int3-channel": ("int3", "channel"), "plain": ("int8", None),
    }  # fmt: skip
    assert {recipe.layer.method for name, recipe in found.items() if name != "plain"} == {"rtn"}


def test_keys_of_a_grid_may_be_written_whole(tmp_path: Path) -> None:
    found = recipes.read([file(tmp_path, '[grid]\n"calibration.source" = ["a/b.txt"]\neffort = ["fast", "best"]')])
    assert list(found) == ["some-a-b.txt-fast", "some-a-b.txt-best"]
    assert found["some-a-b.txt-best"].effort == "best"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("grid = 3", r"some.toml: grid: is no table. Write \[grid.layer\]"),
        ("[grid]\neffort = []", "some.toml: grid.effort: an empty list. Write the values to try, effort = "),
        ('[grid]\neffort = "fast"', "'fast' is no list"),
        (
            '[grid]\nefort = ["fast"]',
            r"\(efort = 'fast'\): efort: unknown option 'efort'. Did you mean effort",
        ),
        (
            "[layer]\ngroup = 64\n[grid.layer]\ngroup = [32]",
            "layer.group: has a value, and values in the grid",
        ),
        ('effort = "fast"\n[grid.effort]\nx = [1]', "some.toml: effort: is no table there. Leave effort.x out"),
        ("[grid.layer]\ngroup = [32, 32]", "two recipes of this sweep are called 'some-32'"),
        ("[grid.calibration]\nseed = [" + "1," * 40 + "]\nwindows = [" + "1," * 40 + "]", "a grid of 1600 recipes"),
        ("[grid", "some.toml: not valid TOML"),
    ],
)
def test_what_is_wrong_names_file_and_key(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        recipes.read([file(tmp_path, text)])
    assert re.search(says, str(caught.value)), str(caught.value)


def test_names_and_numbers(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(RecipeError, match="two recipes of this sweep are called 'some'"):
        recipes.read([file(tmp_path, ""), file(tmp_path / "other", "")])
    with pytest.raises(RecipeError, match="no recipe was given"):
        recipes.read([])
    with pytest.raises(RecipeError, match="cannot be read"):
        recipes.read([tmp_path / "none.toml"])
