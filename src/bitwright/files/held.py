"""How somebody's quantized matrix is held: what readers of every container say of it."""

from __future__ import annotations

from typing import NamedTuple

from bitwright.core.format import Format


class Held(NamedTuple):
    """How a matrix that somebody quantized is held."""

    format: Format
    activations: str = "none"
