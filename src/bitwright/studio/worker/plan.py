"""What a compression would do, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitwright.engine import plan as planning
from bitwright.events import plain
from bitwright.models import kind_of
from bitwright.studio.worker.jobs import recipe_of


def plan(model: str, recipe: dict[str, Any], bundled: str | None = None) -> dict[str, Any]:
    """The plan's summary; `bundled` names the demonstration that a model belongs to."""
    source = Path(model)
    kind, made = kind_of(source), recipe_of(source, recipe, bundled)
    out = planning.beside(kind, source, made)
    job = planning.make(source, out, made, check_out=False, needs_data=kind.has_data(made))
    return plain(planning.summary(job))  # type: ignore[no-any-return]
