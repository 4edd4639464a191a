"""How far one model is from another, on the same data."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

from bitwright.errors import InputError
from bitwright.events import Event
from bitwright.models import kind_of
from bitwright.recipe import Recipe


def measure(a: Path, b: Path, heldout: str, recipe: Recipe | None = None) -> Generator[Event, None, Any]:
    """Compare the float model `a` with `b` on held-out data; the generator returns the comparison (`lines`, `summary`).

    `recipe` says how much text, or how samples are read. Raises what opening either raises, and DataError or
    InputError where they cannot be compared.
    """
    kind = kind_of(a)
    if kind_of(b) is not kind:
        raise InputError(
            f"is no {kind.words.whole} of the kind {kind.name}, as {a} is", where=str(b), fix="Compare two of one kind"
        )
    return (yield from kind.compare(a, b, heldout, recipe or Recipe()))
