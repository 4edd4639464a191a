"""What is alike in measuring what formats cost, whatever the kind of model."""

from __future__ import annotations

from functools import partial

from bitwright.core.array import Array
from bitwright.core.stats import Stats
from bitwright.methods import Seen, registry
from bitwright.models.model import Item, Plan
from bitwright.models.recovery import begins


def searched(w: Array, form: Item, stats: Stats | None) -> Array:
    """What scale search makes of some rows `w` of a matrix: methods that look at data leave a part of its error."""
    search = registry.get("mse")
    return search.solve(w, form.format, Seen(stats), search.options()).decode()


def lies(plan: Plan, form: Item) -> bool:
    """Whether a matrix lies on a format's lattice, as far as its first rows tell: it costs nothing then."""
    return begins(partial(plan.model.rows, form), (form.rows, form.columns), form.format)
