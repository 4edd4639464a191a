"""Which tensors a GGUF file holds, and of which of the source's each is made.

Changes are such that rows which are quantized already can take them: rows in another order, several tensors one after
another. Only norms are computed with. Source: llama.cpp, `conversion/base.py` and the files of the families.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gguf import MODEL_TENSOR, TENSOR_NAMES, get_tensor_name_map

from bitwright.errors import ModelError
from bitwright.files.containers.gguf.families import (
    Config,
    Family,
    family_of,
    head_size,
    require_followed,
    rope,
    rotary_size,
)

Rows = np.ndarray[Any, Any]
"""Numbers of rows, int64."""
Shape = tuple[int, ...]
LEFT_OUT = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")
"""Ends of names of tables that every runtime computes."""
EXPERT = re.compile(r"\.experts\.(\d+)\.")


@dataclass(frozen=True)
class Piece:
    """What one tensor of the source gives: its rows `order` (all, as they lie, where None), from row `first` on."""

    source: str
    first: int = 0
    order: Rows | None = None

    def places(self, start: int, stop: int) -> Rows:
        """Where the source's rows [start, stop) go; -1 for those that go elsewhere.

        >>> Piece("q", 4, np.array([0, 2, 1, 3])).places(1, 3)
        array([6, 5])
        """
        if self.order is None:
            return np.arange(start, stop) + self.first
        found = np.full(max(stop, int(self.order.max(initial=-1)) + 1), -1)
        found[self.order] = np.arange(len(self.order)) + self.first
        return found[start:stop]


@dataclass(frozen=True)
class Target:
    """One tensor of the file: its shape, the longest run last; all axes but that one count as rows.

    `shift` is added to its values; `values` are those of a tensor that the config alone gives.
    """

    name: str
    shape: Shape
    pieces: tuple[Piece, ...] = ()
    shift: float = 0.0
    values: np.ndarray[Any, Any] | None = None

    def whole(self, read: Callable[[str], torch.Tensor]) -> np.ndarray[Any, Any]:
        """All its values, float32, of the source's tensors that `read` gives by name: for what gets no codes."""
        if self.values is not None:
            return self.values
        columns = self.shape[-1] if len(self.shape) > 1 else 1
        found = np.empty((math.prod(self.shape) // columns, columns), np.float32)
        for piece in self.pieces:
            values = read(piece.source).float().numpy().reshape(-1, columns)
            values = values if piece.order is None else values[piece.order]
            found[piece.first : piece.first + len(values)] = values
        # Adding nothing would still change -0.0.
        return (found + np.float32(self.shift) if self.shift else found).reshape(self.shape)

    @property
    def quantizable(self) -> bool:
        """Whether runtimes take codes for it; all others are float32. Source: `prepare_tensors` of the converter."""
        router = self.name.endswith(("ffn_gate_inp.weight", "_norm.weight"))
        return len(self.shape) > 1 and self.name.endswith(".weight") and not router


def targets(config: Config, shapes: Mapping[str, Shape]) -> list[Target]:
    """What is made of a source's tensors (name -> shape), in their order; computed tensors come first.

    ModelError for an unknown architecture, a config that its runtimes would not follow, a tensor that it does not
    have, one of a shape that its config rules out, and experts that are not all there.
    """
    family = family_of(config)
    require_followed(config)
    known = get_tensor_name_map(family.arch, config["num_hidden_layers"])
    found: dict[str, list[tuple[Piece, Shape]]] = {}
    for source, shape in shapes.items():
        if source.endswith(LEFT_OUT) or _tied(source, config, family):
            continue
        for name, piece, taken in _pieces(source, shape, config, family):
            target = known.get_name(name, (".weight", ".bias"))
            if target is None:
                raise ModelError(
                    f"the architecture {family.name} of GGUF has no such tensor",
                    where=source,
                    fix="Remove it, or choose another output",
                )
            found.setdefault(target, []).append((piece, taken))
    return [*_computed(config, family), *(_stack(name, parts, family) for name, parts in found.items())]


def _tied(source: str, config: Config, family: Family) -> bool:
    """Whether a tensor is an output that runtimes take the embedding for."""
    return source == "lm_head.weight" and (family.headless or bool(config.get("tie_word_embeddings")))


def _pieces(source: str, shape: Shape, config: Config, family: Family) -> list[tuple[str, Piece, Shape]]:
    """(name without its expert's number, piece, shape of what it gives) for what one tensor is used in."""
    number = EXPERT.search(source)
    if number is not None:
        name = EXPERT.sub(".experts.", source)
        return [(name, Piece(source, int(number[1]) * shape[0]), shape)]
    if ".experts." in source and len(shape) == 3:  # all experts of a block together
        name = source if source.endswith(".weight") else f"{source}.weight"
        if "gate_up_proj" not in name:
            return [(name, Piece(source), shape)]
        experts, rows = shape[0], shape[1] // 2
        both = np.arange(experts * 2 * rows).reshape(experts, 2, rows)
        return [
            (name.replace("gate_up_proj", half), Piece(source, order=both[:, i].ravel()), (experts, rows, shape[2]))
            for i, half in enumerate(("gate_proj", "up_proj"))
        ]
    return [(source, Piece(source, order=_order(source, shape, config, family)), shape)]


def _order(source: str, shape: Shape, config: Config, family: Family) -> Rows | None:
    """In which order a tensor's rows go; None for that of the source. ModelError where heads do not divide them."""
    query = source.endswith(("q_proj.weight", "q_proj.bias"))
    key = source.endswith(("k_proj.weight", "k_proj.bias"))
    heads = config["num_attention_heads"] if not key else config.get("num_key_value_heads")
    heads = heads or config["num_attention_heads"]
    rows = np.arange(shape[0]) if shape else np.arange(0)
    if family.turned and (query or key):
        _require(source, shape, 2 * heads, config)
        return rows.reshape(heads, 2, -1).swapaxes(1, 2).ravel()
    if family.fused and ".query_key_value." in source:
        _require(source, shape, 3 * heads, config)
        return rows.reshape(heads, 3, -1).swapaxes(0, 1).ravel()
    return None


def _require(source: str, shape: Shape, parts: int, config: Config) -> None:
    if not shape or shape[0] % parts:
        raise ModelError(
            f"its shape {list(shape)} does not divide into the heads of config.json",
            where=source,
            fix="Use the config.json that belongs to these weights",
        )


def _stack(name: str, parts: list[tuple[Piece, Shape]], family: Family) -> Target:
    """One tensor of its parts, which are a single one, or experts in any order."""
    pieces = tuple(sorted((piece for piece, _ in parts), key=lambda piece: piece.first))
    shapes = Counter(shape for _, shape in parts)
    shape = next(iter(shapes))
    if EXPERT.search(pieces[0].source):
        firsts = [piece.first for piece in pieces]
        if len(shapes) > 1 or firsts != [e * shape[0] for e in range(len(pieces))]:
            raise ModelError(
                f"{len(pieces)} experts of the shapes {', '.join(str(list(s)) for s in shapes)} do not make one tensor",
                where=pieces[0].source,
                fix="Download the model again",
            )
        return Target(name, (len(pieces), *shape), pieces)
    if len(pieces) > 1:
        raise ModelError(
            f"both {pieces[0].source} and {pieces[1].source} are {name} of a GGUF file",
            where=pieces[0].source,
            fix="Remove the one that is not meant",
        )
    return Target(name, shape, pieces, family.norm if pieces[0].source.endswith("norm.weight") else 0.0)


def _computed(config: Config, family: Family) -> list[Target]:
    """The divisors of rotary frequencies, where the config asks for other ones than 1."""
    given = rope(config)
    kind = str(given.get("rope_type", given.get("type", ""))).lower()
    if family.turned and kind == "llama3":
        return [_target(MODEL_TENSOR.ROPE_FREQS, llama3_divisors(config))]
    long, short = given.get("long_factor"), given.get("short_factor")
    if long is None:
        return []
    if short is None or {len(long), len(short)} != {rotary_size(config) // 2}:
        raise ModelError(
            f"long_factor and short_factor need {rotary_size(config) // 2} numbers each",
            where="config.json: rope_parameters",
            fix="Use the config.json that belongs to these weights",
        )
    return [_target(MODEL_TENSOR.ROPE_FACTORS_LONG, long), _target(MODEL_TENSOR.ROPE_FACTORS_SHORT, short)]


def _target(key: MODEL_TENSOR, values: Any) -> Target:
    array = np.asarray(values, np.float32)
    return Target(f"{TENSOR_NAMES[key]}.weight", array.shape, values=array)


def llama3_divisors(config: Config) -> torch.Tensor:
    """What each rotary frequency is divided by, float32 [head size / 2].

    Source: `_compute_llama3_parameters` of transformers (modeling_rope_utils.py), which scales long waves by
    1 / factor, leaves short ones, and mixes between. In float32, as there.
    """
    keys = ("rope_theta", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    given: list[Any] = [rope(config).get(key) for key in keys]
    if not all(isinstance(value, int | float) and value > 0 for value in given):
        raise ModelError(
            f"llama3 needs {', '.join(keys)}, each above 0",
            where="config.json: rope_parameters",
            fix="Use the config.json that belongs to these weights",
        )
    base, factor, low, high, context = given
    size = head_size(config)
    frequencies = 1.0 / base ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
    lengths = 2 * math.pi / frequencies
    smooth = (context / lengths - low) / (high - low)
    mixed = 1 / ((1 - smooth) / factor + smooth)
    return torch.where(lengths < context / high, 1.0, torch.where(lengths > context / low, float(factor), mixed))
