"""The recipe that a job of the workbench means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitwright.engine import demo
from bitwright.recipe import Recipe

NETWORK_LAYER: dict[str, Any] = {
    "format": "int8", "group": "channel", "method": "descent", "options": {"damping": 0.001, "sweeps": 4}
}  # fmt: skip
"""How the layers of an ONNX network are stored unless the recipe says otherwise, as `bitwright quantize` does."""


def recipe_of(raw: dict[str, Any], bundled: str | None) -> Recipe:
    """The recipe for a language model; the bundled one brings text that every machine has."""
    if bundled is not None and "source" not in raw.get("calibration", {}):
        text = demo.language(4)[1].model_dump(mode="python", exclude_unset=True)["calibration"]
        raw = {**raw, "calibration": text | raw.get("calibration", {})}
    return Recipe.read(raw, "recipe")


def network_recipe(raw: dict[str, Any], bundled: str | None, samples: Path | None) -> Recipe:
    """The recipe for an ONNX network.

    A bundled one (`bundled`: vision or speech) brings its data, which is written below `samples`; None: only a plan is
    made, which needs no data.
    """
    given = raw.get("layer", {})
    options = {"options": NETWORK_LAYER["options"] | given.get("options", {})}
    raw = {**raw, "layer": NETWORK_LAYER | given | options}
    if bundled is not None and samples is not None and "source" not in raw.get("data", {}):
        samples.mkdir(parents=True, exist_ok=True)
        made = demo.network(bundled, samples, {})[1].model_dump(mode="python", exclude_unset=True)
        raw["data"] = made["data"] | raw.get("data", {})
    return Recipe.read(raw, "recipe")
