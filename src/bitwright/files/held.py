"""How a quantized matrix is stored, as the reader of any container describes it."""

from __future__ import annotations

from typing import NamedTuple

from bitwright.core.format import Format


class Held(NamedTuple):
    """How a quantized matrix is stored."""

    format: Format
    activations: str = "none"
