"""How matrices are stored, as the reader of any container describes them and as runtimes meet them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from bitwright.core.format import Format

Role = Literal["linear", "head", "embedding", "expert", "router", "outside"]


class Held(NamedTuple):
    """How a quantized matrix is stored."""

    format: Format
    activations: str = "none"

    @property
    def words(self) -> str:
        """`int4 g128 asym`, `int8 channel + int8 activations`."""
        f = self.format
        block = f"g{f.block}" if isinstance(f.block, int) else f.block
        zero = " asym" if f.zero is not None else ""
        rounded = f" + {self.activations} activations" if self.activations != "none" else ""
        return f"{f.name} {block}{zero}{rounded}"


class Cache(NamedTuple):
    """How keys and values are held while a model runs: as codes of a format, of what they are divided by.

    `scales` are the parameters of the network that they are divided by, with their shapes: of each attention one for
    keys and one for values; or, with `heads`, as many as it has heads of keys and values.
    """

    format: str
    heads: bool
    scales: Mapping[str, tuple[int, ...]]

    @property
    def words(self) -> str:
        """`fp8, one scale per attention`."""
        return f"{self.format}, one scale per {'head' if self.heads else 'attention'}"


class Module(NamedTuple):
    """A module with one weight matrix, under the name that config.json calls it; `held` is None where it is float.

    `role`: a linear layer, the output head, the input embedding or a head that is one tensor with it (only where they
    are quantized), one expert's matrix, a router, or one that transformers leaves out.
    `stored` is what the files call it, where transformers renames it.
    """

    name: str
    rows: int
    columns: int
    held: Held | None
    role: Role = "linear"
    stored: str = ""

    @property
    def target(self) -> str:
        """What config.json means it by: transformers goes by the network's names, others by those in the files."""
        if self.stored in ("", self.name):
            return self.name
        return f"re:({re.escape(self.name)}|{re.escape(self.stored)})$"

    @property
    def words(self) -> str:
        """As `Held.words`, or `float`."""
        return self.held.words if self.held else "float"
