"""The metadata of a GGUF file as it is written into another."""

from __future__ import annotations

from pathlib import Path

from gguf import GGUFReader, GGUFValueType
from gguf.gguf_writer import GGUFValue

from bitwright.files.containers.gguf.header import Facts

OWN = ("GGUF.", "split.", "quantize.")
"""Beginnings of what a file says of itself alone: where it begins and ends, and what chose its codes."""


def facts(path: Path) -> Facts:
    """All metadata of a file that was read and found whole, with types."""
    found: Facts = {}
    for key, field in GGUFReader(path).fields.items():
        if key.startswith(OWN):
            continue
        kind, *inner = field.types
        sub = inner[-1] if kind is GGUFValueType.ARRAY else None
        found[key] = GGUFValue(value=field.contents(), type=kind, sub_type=sub)
    return found
