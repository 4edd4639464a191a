"""The formats that a matrix may have under a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bitwright.core import formats
from bitwright.core.formats import named
from bitwright.errors import RecipeError, nearest
from bitwright.files.containers import registry as containers
from bitwright.models.model import Item, Plan
from bitwright.recipe import Recipe, matches


def of(recipe: Recipe, columns: int) -> list[str]:
    """The formats to choose from for rows of so many weights, in the order that the recipe or its container gives.

    Raises RecipeError where the container offers none, and for a format that does not exist.
    """
    budget = recipe.budget
    assert budget is not None
    assert recipe.output is not None  # a plan knows its container
    names = budget.formats or containers.get(recipe.output).ladder
    if not names:
        raise RecipeError(
            f"{recipe.output} has no formats to choose from", where="budget", fix="Choose another --to, or name them "
            "in the recipe (budget.formats)", key="budget",
        )  # fmt: skip
    for name in names:
        if name not in formats.families():
            fix = nearest(name, formats.families())
            raise RecipeError(f"no format is called {name!r}", where="budget.formats", fix=fix, key="budget.formats")
    fitting = [name for name in names if named(name).fits(columns) or named(name, group="channel").fits(columns)]
    # Of formats that take the same room the first: those with finer scales stand before.
    return list({_bits(name, columns): name for name in reversed(fitting)}.values())[::-1]


def choices(
    plan: Plan, make: Callable[[Any, str], Item | str], chooses: Callable[[Any], bool] = lambda part: True
) -> dict[str, list[Item]]:
    """The forms that each part of a plan may have, by its name: those that `make(part, format)` gives.

    Where a rule has decided, or the budget does not choose for a part, there is the one that it has.
    """
    found = {}
    for name, item in plan.items.items():
        part, forms = item.part, [item]
        if chooses(part) and not _decided(plan.recipe, plan.model.names(part)):
            made = [make(part, format) for format in of(plan.recipe, part.columns)]
            forms = [form for form in made if isinstance(form, Item)]
        found[name] = forms
    return found


def _decided(recipe: Recipe, names: Sequence[str]) -> bool:
    """Whether a rule gives a format to what is called so."""
    return any("format" in rule.given and any(matches(rule.match, name) for name in names) for rule in recipe.rules)


def _bits(name: str, columns: int) -> int:
    """Bits of a row."""
    whole = named(name).fits(columns)
    return (named(name) if whole else named(name, group="channel")).stored_bits(1, columns)
