"""What a compression would do, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitwright.events import plain
from bitwright.libraries import load
from bitwright.studio.worker.jobs import network_recipe, recipe_of


def plan(model: str, recipe: dict[str, Any], bundled: str | None = None) -> dict[str, Any]:
    """The plan's summary and the model's "kind"; `bundled` names the demonstration that a model belongs to."""
    source = Path(model)
    if source.suffix == ".onnx":
        from bitwright.engine.integer import plan as networks

        made = network_recipe(recipe, bundled, None)
        known = made.data.source is not None
        found = networks.make(source, source.with_name("out.onnx"), made, check_out=False, needs_data=known)
        return {"kind": "network", **plain(found.summary())}
    load()
    from bitwright.engine import plan as planning

    job = planning.make(source, Path("out"), recipe_of(recipe, bundled), check_out=False)
    return {"kind": "language", **plain(job.summary())}
