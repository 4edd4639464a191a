"""Tensors of a GGUF file: their rows as floats, and how often each level of their codes is used."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bitwright.core.formats import named
from bitwright.core.measure import Usage
from bitwright.errors import FileError
from bitwright.files.containers.gguf.blocks import LAYOUTS, read_codes, unpack
from bitwright.files.gguf import Gguf, Raw, Tensor, Type

PIECE = 1 << 22
"""Weights that are decoded at once."""
VECTORS = frozenset({"IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ3_S", "IQ2_S", "IQ1_M"})
"""Types whose codes stand for several weights at once; gguf-py decodes them."""


def rows(found: Gguf, tensor: Tensor, start: int, stop: int) -> torch.Tensor:
    """Rows [start, stop) of a tensor as floats, float32 [stop - start, columns]; all axes but the first are rows.

    They are gguf-py's floats, bit for bit; a number that is not finite stays so. Memory beyond the answer is bounded.
    Raises FileError for a type that has no floats, or is not known.
    """
    if not 0 <= start <= stop <= tensor.rows:
        raise ValueError(f"rows {start} to {stop} of {tensor.rows}")
    kind = _decodable(found, tensor)
    per_row = tensor.columns // kind.weights
    step = max(1, PIECE // tensor.columns)
    out = torch.empty(stop - start, tensor.columns)
    for first in range(start, stop, step):
        count = min(step, stop - first)
        raw = found.raw(tensor, first * per_row, count * per_row)
        out[first - start : first - start + count] = _floats(raw.reshape(count, -1), kind)
    return out


def usage(found: Gguf, tensor: Tensor) -> Usage | None:
    """How often each level of a tensor's codes is used; None where its weights have no code each."""
    if tensor.type is None or tensor.type.name.lower() not in LAYOUTS:
        return None
    name = tensor.type.name.lower()
    code = named(name).code
    total = Usage.of(np.zeros(0, np.uint8), code)
    for _, raw in found.pieces(tensor):
        total += Usage.of(read_codes(raw, name), code)
    return total


def _decodable(found: Gguf, tensor: Tensor) -> Type:
    """The type of a tensor that has floats."""
    kind = tensor.type
    if kind is not None and (kind.name in ("F32", "F16", "BF16", *VECTORS) or kind.name.lower() in LAYOUTS):
        return kind
    told = (
        f"type {tensor.number} is not known here"
        if kind is None
        else f"{kind.name} is no type of weights that Bitwright reads"
    )
    where = f"{tensor.path}: {tensor.name}"
    raise FileError(told, where=where, fix="Take a GGUF file of another type", foreign=kind is None)


def _floats(raw: Raw, kind: Type) -> torch.Tensor:
    """Rows uint8 [rows, bytes] as float32 [rows, columns]."""
    if kind.name in VECTORS:
        from gguf import GGMLQuantizationType, quants

        decoded: Any = quants.dequantize(raw, GGMLQuantizationType[kind.name])
        return torch.from_numpy(decoded)
    held = torch.from_numpy(raw)
    if kind.name.lower() in LAYOUTS:
        floats: torch.Tensor = unpack(held, kind.name.lower()).decode()
        return floats
    return held.view({"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind.name]).float()
