"""One matrix before and after: where its weights lie, and where the error comes from."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from bitwright.engine import plan as planning
from bitwright.errors import InputError
from bitwright.events import plain
from bitwright.models.model import Plan
from bitwright.studio.worker.jobs import recipe_of

BINS = 96


def matrix(model: str, out: str, name: str, recipe: dict[str, Any], bundled: str | None, samples: str) -> Any:
    """The histogram of matrix `name`, also of a run that is still going; see `models.histogram`."""
    plan = _plan(model, out, json.dumps(recipe), bundled, samples)
    if name not in plan.items:
        raise InputError("is not quantized by this run", where=name, fix="Choose one of the rows")
    return plain(plan.model.histogram(plan, name, BINS))


@lru_cache(1)
def _plan(model: str, out: str, recipe: str, bundled: str | None, samples: str) -> Plan:
    """The plan of a run. Who looks at one matrix looks at others: a network is rewritten once."""
    source = Path(model)
    return planning.make(source, Path(out), recipe_of(source, json.loads(recipe), bundled, samples), check_out=False)
