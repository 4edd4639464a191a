"""What a command or a call is told in single options, and the recipe that they mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitwright import methods
from bitwright.core import formats
from bitwright.errors import RecipeError, nearest
from bitwright.files.containers import registry as containers
from bitwright.models import Kind, kinds
from bitwright.recipe import Layer, Recipe
from bitwright.stages import STAGES, Settings

COMMON = {"effort": "effort", "max_drop": "max_drop", "output": "output"}
"""Options for every kind of model, and the recipe's keys that they mean."""
LAYER = ("bits", "format", "group", "symmetric", "method")
"""Options that make up the `[layer]` table."""
SPELLED = {"output": "--to"}
"""Options that the command line calls otherwise."""


def make_recipe(kind: Kind, recipe: Recipe | Path | str | Mapping[str, Any] | None, given: Mapping[str, Any]) -> Recipe:
    """A recipe (its file, its tables, or none) with the options that were `given`; None and empty lists are not.

    `kind` says what options mean for its models. RecipeError for an option that is of no use to this kind, and for
    options that contradict one another.
    """
    raw = _tables(recipe)
    require_tables(kind, raw, str(recipe) if isinstance(recipe, (str, Path)) else "recipe")
    found = {name: value for name, value in given.items() if value is not None and value != []}
    layer = _layer(found)
    if found.pop("simulate", False):
        if found.get("output", "float") != "float":
            raise RecipeError("contradicts --to", where="--simulate", fix="Give one of them", key="output")
        able = [other for other in kinds.all() if other.holds == containers.get("float").holds]
        if kind not in able:
            raise _elsewhere(kind, able, "--simulate", "output")
        found["output"] = "float"
    keys = COMMON | dict(kind.options)
    for name in ("size", "max_shard_size"):
        if name in found:
            found[name] = size(found[name], f"--{name.replace('_', '-')}")
    for name, value in found.items():
        if name in LAYER:
            continue
        if name not in keys:
            where = SPELLED.get(name, f"--{name.replace('_', '-')}")
            able = [other for other in kinds.all() if name in other.options]
            raise _elsewhere(kind, able, where, able[0].options[name])
        *tables, key = keys[name].split(".")
        if tables == ["layer"]:
            layer[key] = value
            continue
        table = raw
        for step in tables:
            table = table.setdefault(step, {})
        table[key] = value
    if layer:
        raw["layer"] = _overlaid(raw.get("layer", {}), layer)
    for i, table in enumerate([raw.get("layer", {}), *raw.get("rules", ())]):
        _require_agreeing(table, found, f"rules.{i - 1}" if i else "layer")
    if raw.get("type") is not None:
        _require_mixed(raw.get("layer", {}), found)
    if raw.get("budget") is not None:
        _require_free(raw, found)
    return Recipe.read(raw, "options")


TEXT = ("windows", "length", "heldout", "heldout_windows", "seed")
"""Options of stages that say what text is read, beside `calib`."""


COUNTS = ("params", "tokens")
"""Options of stages that are numbers of something, which people shorten: 100M."""


def make_settings(stage: str, given: Mapping[str, Any]) -> Settings:
    """The settings of a stage by its name, from the options that were `given`; None and empty lists are not.

    RecipeError for an option or a stage that does not exist.
    """
    if stage not in STAGES:
        raise RecipeError(f"no stage is called {stage!r}", where="stage", fix=nearest(stage, STAGES))
    table = STAGES[stage]
    found = {name: value for name, value in given.items() if value is not None and value != []}
    calibration = {name: found.pop(name) for name in TEXT if name in found}
    calibration |= {"source": found.pop("calib")} if "calib" in found else {}
    if "max_shard_size" in found:
        found["max_shard_bytes"] = size(found.pop("max_shard_size"), "--max-shard-size")
    for name in COUNTS:
        if isinstance(found.get(name), str):
            found[name] = count(found[name], f"--{name}")
    return table.read({**found, **({"calibration": calibration} if calibration else {})}, stage)


def count(text: str, where: str) -> int:
    """A number from text such as 100M, 1.5B, 20k or 1000000; RecipeError for anything else, said of option `where`."""
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([kmb]?)\s*", text.lower())
    if match is None:
        what = f"{text!r} is not a number of {where.removeprefix('--').replace('params', 'parameters')}"
        raise RecipeError(what, where=where, fix="Write for example 100M or 1.5B")
    return int(float(match[1]) * 1000 ** " kmb".index(match[2] or " "))


def _require_mixed(layer: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise RecipeError where a format is asked for beside a mix, which gives every tensor its own."""
    asked = [f"--{name}" for name in ("bits", "format", "group") if name in given]
    asked += ["--asymmetric"] if given.get("symmetric") is False else []
    usual = Layer()
    for key in ("format", "group", "symmetric"):
        if key in layer and layer[key] != getattr(usual, key):
            asked.append(f"recipe: layer.{key}")
    if asked:
        raise RecipeError(
            "contradicts the mix, which gives every tensor its format", where=asked[0],
            fix="Give it or --type; rules of a recipe change single tensors", key="type",
        )  # fmt: skip


def _require_free(raw: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise RecipeError where something else than a budget decides which formats there are."""
    usual = Layer()
    asked = [f"--{name}" for name in ("bits", "format") if name in given]
    asked += [f"--{name.replace('_', '-')}" for name in ("type", "max_drop") if raw.get(name) is not None]
    if not asked and raw.get("layer", {}).get("format", usual.format) != usual.format:
        asked = ["recipe: layer.format"]
    if asked:
        raise RecipeError(
            "contradicts the budget, by which formats are chosen", where=asked[0],
            fix="Give it or a budget (--size, --bpw, --max-kl); rules of a recipe give single tensors a format",
            key="budget",
        )  # fmt: skip


def _require_agreeing(table: Mapping[str, Any], given: Mapping[str, Any], key: str) -> None:
    """Raise RecipeError where a table asks of its format what that lacks: another block than its own, zero points."""
    name, group = table.get("format"), table.get("group")
    if name not in formats.families():
        return  # the plan says so
    if isinstance(group, int) and group > 0 and (block := formats.named(name, group=group).block) != group:
        where = "--group" if "group" in given else f"recipe: {key}.group"
        what = f"{name} has blocks of {block}, which are fixed"
        raise RecipeError(what, where=where, fix="Leave it out, or choose another --format", key=f"{key}.group")
    if table.get("symmetric") is False and formats.named(name, symmetric=False).zero is None:
        where = "--asymmetric" if "symmetric" in given else f"recipe: {key}.symmetric"
        what = f"{name} stores no zero points"
        raise RecipeError(what, where=where, fix="Leave it out, or choose another --format", key=f"{key}.symmetric")


def require_tables(kind: Kind, tables: Mapping[str, Any], where: str) -> None:
    """Raise RecipeError, about the recipe at `where`, for a table that is of use to another kind of model alone.

    A recipe that was written out in full has them all: those that only say what goes without saying may stay.
    """
    for key, table in tables.items():
        able = [other for other in kinds.all() if key in other.tables]
        if able and kind not in able and getattr(Recipe.read({key: table}, where), key) != getattr(Recipe(), key):
            raise _elsewhere(kind, able, f"{where}: {key}", key)


def _elsewhere(kind: Kind, able: list[Kind], where: str, key: str) -> RecipeError:
    """What is said of an option or a table that is for models of the kinds `able`."""
    others = " and ".join(other.title for other in able)
    return RecipeError(f"is for {others} only", where=where, fix=f"Leave it out for {kind.title}", key=key)


def _tables(recipe: Recipe | Path | str | Mapping[str, Any] | None) -> dict[str, Any]:
    """The tables of a recipe that say something."""
    if recipe is None:
        return {}
    if isinstance(recipe, (str, Path)):
        recipe = Recipe.load(Path(recipe))
    elif not isinstance(recipe, Recipe):
        recipe = Recipe.read(dict(recipe), "recipe")
    return recipe.model_dump(mode="python", exclude_unset=True)


def _layer(given: Mapping[str, Any]) -> dict[str, Any]:
    """The `[layer]` table that bits, format, group, symmetric and method mean."""
    bits, format_name, group = given.get("bits"), given.get("format"), given.get("group")
    if bits is not None and format_name is not None:
        raise RecipeError("given together with --format", where="--bits", fix="Give one of them", key="layer.format")
    layer = {key: given[key] for key in ("symmetric", "method") if key in given}
    if bits is not None:
        if not 1 <= bits <= 8:
            raise RecipeError(f"{bits} bits", where="--bits", fix="Choose 1 to 8", key="layer.format")
        layer["format"] = f"int{bits}"
    if format_name is not None:
        layer["format"] = format_name
        if "method" not in layer and (only := _only_method(format_name)):
            layer["method"] = only
    if group is not None:
        layer["group"] = int(group) if isinstance(group, str) and group.isdigit() else group
    return layer


def _only_method(format_name: str) -> str | None:
    """The method for a format that the default one cannot take, where there is just one that can."""
    if format_name not in formats.families():
        return None  # the plan says so
    format = formats.named(format_name)
    if methods.registry.get(Layer().method).fits(format) is None:
        return None
    able = [method.name for method in methods.registry.all() if method.fits(format) is None]
    return able[0] if len(able) == 1 else None


def _overlaid(table: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A `[layer]` table with what was given instead; options of a method that gave way to another go with it."""
    method = given.get("method")
    if method in methods.registry.names() and "options" in table and "options" not in given:
        known = methods.registry.get(str(method)).options.model_fields
        table = table | {"options": {key: value for key, value in table["options"].items() if key in known}}
    return table | given


def size(text: str | int | None, where: str = "--max-ram") -> int | None:
    """Bytes from text such as 2GB, 1.5GiB, 800MB; RecipeError for anything else, said of option `where`."""
    if text is None or isinstance(text, int):
        return text
    match = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]?)(i?)b?\s*", text.lower())
    try:
        number = float(match[1]) if match else 0.0
    except ValueError:
        number = 0.0
    if match is None or number <= 0:
        raise RecipeError(f"{text!r} is not a size", where=where, fix="Write for example 2GB or 800MB")
    power = " kmgt".index(match[2] or " ")
    return int(number * (1024 if match[3] else 1000) ** power)
