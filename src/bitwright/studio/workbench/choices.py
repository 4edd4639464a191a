"""What a run can be told, by kind of model: methods, formats and containers, and what goes with what.

All of it comes from the registries: what is added to one of them by a single file appears on the page by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from typing import Any, get_args

from bitwright import methods
from bitwright.core import formats
from bitwright.core.format import Format
from bitwright.core.scaling import Block
from bitwright.errors import RecipeError
from bitwright.files import containers
from bitwright.files.container import Container
from bitwright.files.containers.gguf.mixes import MIXES
from bitwright.methods import Method
from bitwright.models import Kind, kinds
from bitwright.recipe import TABLES, Layer, Recipe

GROUPS: tuple[Block, ...] = (16, 32, 64, 128, 256, "channel", "tensor")
"""Weights that share a scale, as people choose them; a recipe may name any number."""

COMMON = ("effort", "max_drop", "output")
"""Keys of a recipe beside its tables that every kind of model uses."""

Table = dict[str, Any]


def choices() -> dict[str, Table]:
    """Everything a page needs to offer what fits, by the name of the kind of model."""
    return {kind.name: _of(kind) for kind in kinds.all()}


def _of(kind: Kind) -> Table:
    recipe = Recipe.model_validate({"layer": dict(kind.layer)} if kind.layer else {})
    default, families = recipe.layer, formats.families()
    held = [container for container in containers.registry.all() if container.holds == kind.holds]
    held.sort(key=lambda container: (container.name != kind.output(recipe), container.study))
    able = [method for method in methods.registry.all() if kind.serves(method)]
    able.sort(key=lambda method: method.name != default.method)
    fits = [fit for container in held for fit in _fits(kind, container, able)]
    packed = {fit["format"] for fit in fits if fit["container"] not in {c.name for c in held if c.study}}
    names = [name for name in families if any(fit["format"] == name for fit in fits)]
    ranks = {id(families[name]): 1 for name in packed} | {id(families[default.format]): 2}
    names.sort(key=lambda name: -ranks.get(id(families[name]), 0))
    return {
        "title": kind.title,
        "words": kind.words._asdict(),
        "containers": [
            {
                "name": c.name, "title": c.title, "study": c.study, "integer": getattr(c, "integer", False),
                "spends": bool(c.ladder),
            }
            for c in held
        ],
        "mixes": [*MIXES] if "type" in kind.tables else [],
        "formats": [
            {"name": name, "title": families[name].titles[name], "family": families[name].title, **_looks(name)}
            for name in names
        ],
        "methods": [found for method in able if (found := _method(method, fits))["formats"]],
        "fits": fits,
        "settings": {
            "recipe": {key: setting for key, setting in _schema(Recipe).items() if key in {*COMMON, *kind.tables}},
            **{key: _schema(TABLES[key]) for key in kind.tables if key in TABLES},
        },
        "defaults": recipe.model_dump(mode="json", include={"layer", *COMMON, *kind.tables}),
    }  # fmt: skip


def _looks(name: str) -> Table:
    """The bits of a format, and where between the lowest and the highest its values lie: None where they are free."""
    code = formats.named(name).code
    values = sorted({value for value in getattr(code, "values", ()) if math.isfinite(value)})
    shares = {round((value - values[0]) / (values[-1] - values[0]), 4) for value in values}
    return {"bits": code.bits, "levels": sorted(shares) or None}


def _method(method: Method, fits: list[Table]) -> Table:
    taken = dict.fromkeys(fit["format"] for fit in fits if method.name in fit["methods"])
    return {
        "name": method.name, "title": method.title, "source": method.source, "needs": method.needs,
        "formats": list(taken), "options": _schema(method.options),
    }  # fmt: skip


def _schema(table: Any) -> Table:
    """The keys of a recipe's table with their types, limits and defaults, as JSON Schema has them."""
    found: Table = table.model_json_schema().get("properties", {})
    return found


def _fits(kind: Kind, container: Container, able: list[Method]) -> Iterator[Table]:
    """Each way in which a container holds a format, with the groups and the methods that go with it.

    "block" is the group that it has where none is asked for.
    """
    rounded = get_args(Layer.model_fields["activations"].annotation)
    if "layer.activations" not in kind.options.values():
        rounded = ("none",)
    seen: set[tuple[str, Format]] = set()
    for name, symmetric, activations in product(formats.names(), (True, False), rounded):
        found: dict[Block | None, Format] = {}
        for group in (None, *GROUPS):
            with suppress(RecipeError):
                format = container.format(name, group=group, symmetric=symmetric, activations=activations)
                if group is None or format.block == group:
                    found[group] = format
        first = next(iter(found.values()), None)
        if first is None or (activations, first) in seen:  # nothing, or the same by another name
            continue
        seen.add((activations, first))
        groups = [group for group in found if group is not None]
        fitting = [method.name for method in able if method.fits(first) is None]
        if fitting:
            yield {
                "container": container.name, "format": name, "symmetric": symmetric, "activations": activations,
                "groups": groups, "block": first.block, "methods": fitting,
            }  # fmt: skip
