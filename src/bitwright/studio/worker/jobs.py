"""The plan that a job of the workbench means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bitwright
from bitwright.engine import demo
from bitwright.models import kind_of
from bitwright.recipe import Recipe


def recipe_of(model: Path, raw: dict[str, Any], bundled: str | None, samples: str | None = None) -> Recipe:
    """The recipe for the model at a path.

    Where it names no data, those of the demonstration that a model belongs to (`bundled`) are taken, written below
    `samples`; None: only a plan is made, which needs no samples.
    """
    table, _, key = kind_of(model).options["calib"].partition(".")
    if bundled is not None and key not in raw.get(table, {}):
        folder = Path(samples) / bitwright.__version__ / bundled if samples else None
        brought = demo.make(bundled, folder, None)[1].model_dump(mode="json", exclude_unset=True)
        raw = {**raw, table: brought[table] | raw.get(table, {})}
    return Recipe.read(raw, "recipe")
