"""Reads back a compressed-tensors folder from any tool."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bitwright.core.qtensor import QTensor
from bitwright.errors import FileError
from bitwright.files.containers.compressed_tensors.cache import SCALES, SCHEME, round_kept, shapes
from bitwright.files.containers.compressed_tensors.layout import (
    PACKED,
    SUFFIXES,
    Scheme,
    decode_by_library,
    round_by_library,
    scheme_of,
    unpack,
)
from bitwright.files.containers.compressed_tensors.rules import UNEVEN, dense
from bitwright.files.containers.compressed_tensors.runtimes import runtimes, unmarked
from bitwright.files.folder import read_config
from bitwright.files.held import Cache, Held, Module
from bitwright.files.quantized import QuantizedCheckpoint
from bitwright.files.safetensors import Entry

FORMATS: dict[tuple[Any, Any], str] = {("float", 8): "fp8", **{("int", bits): f"int{bits}" for bits in range(2, 9)}}
"""Formats of keys and values, by type and bits."""


class Reader(QuantizedCheckpoint):
    """A compressed-tensors folder whose quantized matrices appear as one float tensor each, decoded when read.

    Reading gives the scale's dtype, which is what the runtime's own decoder gives.
    """

    library = "the compressed-tensors library"

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        """Open `folder` under its `quantization_config`; FileError or ModelError where they disagree."""
        super().__init__(folder)
        self.config = config
        self.stored = dict(self.tensors)
        self.quantized: dict[str, Held] = {}
        self._schemes: dict[str, tuple[dict[str, Entry], Scheme]] = {}
        self._cache: dict[str, Any] | None = config.get(SCHEME)
        self._kept: dict[str, torch.Tensor] = {}
        if self._cache is not None:
            self._kept = {n: self.read_entry(self.tensors.pop(n)) for n in self.stored if n.endswith(SCALES)}
        modules = [n.removesuffix(".weight_scale") for n in self.stored if n.endswith(".weight_scale")]
        lonely = [module for module in modules if not self._parts(module).keys() - {"weight_scale"}]
        for module in modules:
            if module not in lonely:
                self._adopt(module)
        for module in lonely:
            self._require_shared(module)

    def _parts(self, module: str) -> dict[str, Entry]:
        """The stored tensors of a module, by suffix."""
        return {s: self.stored[f"{module}.{s}"] for s in (*SUFFIXES, "weight") if f"{module}.{s}" in self.stored}

    def _require_shared(self, module: str) -> None:
        """Raise FileError for a scale without codes, unless it repeats the scale of a module whose codes are shared.

        Whether the network ties the two is the architecture's to say.
        """
        group, name = self._group(module), f"{module}.weight_scale"
        entry = self.tensors.pop(name)
        scale = self.read_entry(entry)
        shared = any(
            scheme.bytewise
            and self._group(other.removesuffix(".weight")) == group
            and torch.equal(scale, self.read_entry(parts["weight_scale"]))
            for other, (parts, scheme) in self._schemes.items()
        )
        if not shared:
            where = f"{self.folder}: {module}"
            raise FileError("a scale without codes", where=where, fix="The file is incomplete: write it again")

    def _adopt(self, module: str) -> None:
        where = f"{self.folder}: {module}"
        parts = self._parts(module)
        scale = parts["weight_scale"]
        scheme = scheme_of(self._group(module), scale.dtype, where)
        if "weight" in parts and scheme.kind == PACKED:
            scheme = replace(scheme, bytewise=True)
            if scheme.format.zero is not None:
                raise FileError(
                    "zero points beside codes that are not packed cannot be decoded here",
                    where=where, fix="Supported: packed codes, or symmetric ones", foreign=True,
                )  # fmt: skip
        if "weight" not in parts and not {"weight_packed", "weight_shape"} <= set(parts):
            raise FileError("a scale without codes", where=where, fix="The file is incomplete: write it again")
        for suffix in parts:
            self.tensors.pop(f"{module}.{suffix}", None)
        name = f"{module}.weight"
        if "weight" in parts:
            shape = parts["weight"].shape
        else:
            shape = tuple(int(n) for n in super().read_entry(parts["weight_shape"]))
        f = scheme.format
        if len(shape) == 2:
            rows, columns = shape
            scheme = self._layout(scheme, parts.get("weight_packed"), columns)
            expected = {s.name.rpartition(".")[2]: s for s in scheme.specs(module, rows, columns)}
            for suffix, spec in expected.items():
                got = parts.get(suffix)
                want = (1,) if f.block == "tensor" and suffix == "weight_scale" else spec.shape
                if got is None or (got.shape != want and got.shape != spec.shape):
                    raise FileError(
                        f"{suffix} is {list(got.shape) if got else 'absent'}, "
                        f"{f.name} of {list(shape)} needs {list(want)}",
                        where=where,
                        fix="config.json and the weights disagree: quantize again",
                    )
        self.tensors[name] = replace(
            scale, name=name, shape=shape, size=shape[0] * shape[1] * scale.dtype.itemsize, offset=-1
        )
        self._schemes[name] = (parts, scheme)
        self.quantized[name] = Held(scheme.format, scheme.activations)

    def _layout(self, scheme: Scheme, packed: Entry | None, columns: int) -> Scheme:
        """The scheme with the layout of its words: by their number, or where that is the same by the release named."""
        if packed is None or scheme.format.bits not in UNEVEN:
            return scheme
        padded = replace(scheme, padded=True)
        if scheme.words(columns) != padded.words(columns):
            return padded if packed.shape[-1] == padded.words(columns) else scheme
        return scheme if dense(str(self.config.get("version"))) else padded

    def _group(self, module: str) -> dict[str, Any]:
        groups = list((self.config.get("config_groups") or {}).values())
        for group in groups:
            for target in group.get("targets", ()):
                # A checkpoint may leave out the network's first name, as others do for all of a path but the last.
                exact = module == target or module.endswith("." + target) or target.endswith("." + module)
                if exact or (target.startswith("re:") and re.match(target[3:], module)):
                    return dict(group)
        for group in groups:
            if "Linear" in group.get("targets", ()):
                return dict(group)
        raise FileError(
            "quantized, but no config group targets it",
            where=f"{self.folder}: {module}",
            fix="Repair quantization_config",
        )

    def parts(self, name: str, start: int = 0, stop: int | None = None) -> dict[str, torch.Tensor]:
        """The stored tensors of rows [start, stop) of a quantized matrix, by suffix: a smaller matrix of their own.

        `start` is a multiple of the scheme's `rows_per_word`, so that no word of zero points is cut.
        """
        entries, scheme = self._schemes[name]
        rows = self.tensors[name].shape[0]
        stop = rows if stop is None else min(stop, rows)
        if start % scheme.rows_per_word:
            raise ValueError(f"row {start} does not begin a word of {scheme.rows_per_word} rows")
        if (start, stop) == (0, rows):
            return {suffix: self.read_entry(entry) for suffix, entry in entries.items()}
        parts = {}
        for suffix, entry in entries.items():
            if suffix == "weight_shape":
                parts[suffix] = torch.tensor([stop - start, self.tensors[name].shape[1]])
            elif suffix == "weight_zero_point":
                parts[suffix] = self.read_entry(entry, scheme.words(start), scheme.words(stop))
            elif suffix == "weight_scale" and scheme.format.block == "tensor":
                parts[suffix] = self.read_entry(entry)
            else:
                parts[suffix] = self.read_entry(entry, start, stop)
        return parts

    def qtensor(self, name: str, start: int = 0, stop: int | None = None) -> QTensor:
        """Rows [start, stop) of a quantized matrix as codes, scales and zeros; `start` as for `parts`."""
        return unpack(self.parts(name, start, stop), self._schemes[name][1])

    def by_library(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """The same as the compressed-tensors library decodes it, in the scale's dtype."""
        return decode_by_library(self.parts(name, start, stop), self._schemes[name][1])

    def round_inputs(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """`x` after the compressed-tensors library's rounding of each token, where the scheme says so."""
        scheme = self._schemes[name][1]
        return x if scheme.activations == "none" else round_by_library(x, scheme)

    def cache(self, network: Any) -> Cache | None:
        if self._cache is None:
            return None
        kind, bits, strategy = (self._cache.get(key) for key in ("type", "num_bits", "strategy"))
        format = FORMATS.get((kind, bits))
        fixed = self._cache.get("symmetric") is True and not self._cache.get("dynamic")
        if format is None or strategy not in ("tensor", "attn_head") or not fixed:
            raise FileError(
                f"keys and values as {bits}-bit {kind} per {strategy} cannot be rounded here",
                where=f"{self.folder / 'config.json'}: quantization_config.{SCHEME}",
                fix="Supported: fp8 and integers, symmetric and fixed, per tensor or attn_head", foreign=True,
            )  # fmt: skip
        try:
            scales = shapes(self._cache, network)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise FileError(
                f"the compressed-tensors library cannot round keys and values of {type(network).__name__} "
                f"({' '.join(str(error).split())[:120]})",
                where=f"{self.folder / 'config.json'}: quantization_config.{SCHEME}", fix="Quantize again without",
            ) from error  # fmt: skip
        return Cache(format, strategy == "attn_head", scales)

    def cache_scale(self, name: str) -> torch.Tensor | None:
        return self._kept.get(name)

    def round_cache(self, name: str, x: torch.Tensor) -> torch.Tensor:
        assert self._cache is not None
        return round_kept(x, self._kept[name], self._cache)

    def runtimes(self, modules: Sequence[Module], unpack: bool = False) -> list[str]:
        return runtimes({**read_config(self.folder), "quantization_config": self.config}, modules, unpack)

    def unmarked(self, modules: Sequence[Module]) -> list[str]:
        return unmarked({"quantization_config": self.config}, modules)

    def step(self, name: str) -> int:
        """Rows whose zero points fill whole words."""
        return self._schemes[name][1].rows_per_word
