"""The recipes of a sweep: TOML files with one recipe each, or with a grid of them.

    [layer]
    method = "descent"
    [grid.layer]
    format = ["int4", "int3"]
    group = [64, 128]

is four recipes: every value of one list with every value of the other, the last list changing fastest.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from bitwright.errors import RecipeError
from bitwright.recipe import Recipe, tables

GRID = "grid"
"""The table of a recipe file that holds lists of values instead of values."""
MOST = 1000
"""Recipes of one sweep."""


def read(paths: Sequence[Path]) -> dict[str, Recipe]:
    """The recipes in these files, by name: the file's, and what its grid chose. RecipeError names file and key."""
    found: dict[str, Recipe] = {}
    for path in paths:
        for name, recipe in _read(path):
            if name in found:
                fix = "Rename a file, or leave out what is in a list twice"
                raise RecipeError(f"two recipes of this sweep are called {name!r}", where=str(path), fix=fix)
            found[name] = recipe
    if not found:
        raise RecipeError("no recipe was given", where="sweep", fix="Give TOML files, such as recipes/*.toml")
    if len(found) > MOST:
        raise RecipeError(f"{len(found)} recipes", where="sweep", fix=f"At most {MOST} go into one sweep")
    return found


def _read(path: Path) -> Iterator[tuple[str, Recipe]]:
    raw = tables(path)
    grid = raw.pop(GRID, {})
    if not isinstance(grid, dict):
        raise RecipeError("is no table", where=f"{path}: {GRID}", fix="Write [grid.layer] and lists below it")
    lists = dict(_lists(grid, "", path))
    if (count := prod(map(len, lists.values()))) > MOST:
        raise RecipeError(f"a grid of {count} recipes", where=str(path), fix=f"At most {MOST} go into one sweep")
    for values in product(*lists.values()):
        made = copy.deepcopy(raw)
        for key, value in zip(lists, values, strict=True):
            _set(made, key, value, path)
        chosen = ", ".join(f"{key} = {value!r}" for key, value in zip(lists, values, strict=True))
        yield (
            "-".join([path.stem, *map(_word, values)]),
            Recipe.read(made, f"{path} ({chosen})" if chosen else str(path)),
        )


def _lists(table: Mapping[str, Any], prefix: str, path: Path) -> Iterator[tuple[str, list[Any]]]:
    """The lists of a grid by whole keys, `layer.format`."""
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _lists(value, f"{key}.", path)
        elif isinstance(value, list) and value:
            yield key, value
        else:
            what = "an empty list" if value == [] else f"{value!r} is no list"
            fix = f"Write the values to try, {key} = [...], or move it out of [{GRID}]"
            raise RecipeError(what, where=f"{path}: {GRID}.{key}", fix=fix, key=key)


def _set(raw: dict[str, Any], key: str, value: Any, path: Path) -> None:
    *tables, last = key.split(".")
    table = raw
    for name in tables:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise RecipeError("is no table there", where=f"{path}: {name}", fix=f"Leave {key} out of [{GRID}]", key=key)
    if last in table:
        raise RecipeError(
            "has a value, and values in the grid", where=f"{path}: {key}", fix="Keep one of them", key=key
        )
    table[last] = value


def _word(value: Any) -> str:
    """A value as part of a file's name."""
    return re.sub(r"[^\w.]+", "-", str(value)).strip("-.") or "none"
