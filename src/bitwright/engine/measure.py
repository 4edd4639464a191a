"""How far one model is from another, on the same data."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

from bitwright.events import Event
from bitwright.models import require_same_kind
from bitwright.recipe import Recipe


def measure(a: Path, b: Path, heldout: str, recipe: Recipe | None = None) -> Generator[Event, None, Any]:
    """Compare the float model `a` with `b` on held-out data; the generator returns the comparison (`lines`, `summary`).

    `recipe` says how much text, or how samples are read. Raises what opening either raises, and DataError or
    InputError where they cannot be compared.
    """
    kind = require_same_kind(a, b)
    return (yield from kind.compare(a, b, heldout, recipe or Recipe()))
