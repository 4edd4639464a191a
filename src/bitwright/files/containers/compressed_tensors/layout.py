"""The compressed-tensors container: what transformers and vLLM load as it stands.

Codes are packed densely, as releases from 0.18 on read them. Before, 3, 5, 6 and 7 bits were packed under the same name
so that no code crossed the end of a word: such files are read, and not written. Formats and field names:
https://github.com/vllm-project/compressed-tensors (schema of `quantization_config`, version recorded below).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import gcd
from typing import Any, Literal

import torch

from bitwright.core import bits
from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.grid import E4M3
from bitwright.core.measure import Usage
from bitwright.core.qtensor import QTensor
from bitwright.errors import FileError
from bitwright.files.container import Stored
from bitwright.files.containers.compressed_tensors.rules import UNEVEN, dense, installed, packed, require
from bitwright.files.held import Held
from bitwright.files.safetensors import Spec

Activations = Literal["none", "int8", "fp8"]
PACKED, INT8, FLOAT8, MIXED = "pack-quantized", "int-quantized", "float-quantized", "mixed-precision"
SUFFIXES = ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape")
SCALE_DTYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
WORD = 32
STRATEGIES = ("tensor", "channel", "group", "block", "token", "tensor_group", "attn_head")
"""Of the library's QuantizationStrategy: what is not read here may be right."""


@dataclass(frozen=True)
class Scheme:
    """A weight format and what happens to the layer's input at run time (dynamic, one scale per token)."""

    format: Format
    activations: Activations = "none"
    padded: bool = False
    """No code crosses the end of a word: the layout of 3, 5, 6 and 7 bits before release 0.18."""
    bytewise: bool = False
    """Each code has a byte of its own, though activations stay float."""

    @classmethod
    def of(cls, held: Held, lookup: bool = False) -> Scheme:
        """The scheme of how a matrix is stored; with `lookup`, of an embedding."""
        apart = not packed(held, lookup) and held.activations == "none"
        return cls(*held, bytewise=apart and held.format.code is not E4M3)  # type: ignore[arg-type]

    @property
    def kind(self) -> str:
        """The container's own format name."""
        if self.format.code is E4M3:
            return FLOAT8
        return INT8 if self.activations == "int8" or self.bytewise else PACKED

    @property
    def rows_per_word(self) -> int:
        """Rows whose zero points fill whole int32 words: a piece of a matrix must begin at a multiple of them."""
        width = self.format.bits
        return WORD // width if self.padded else WORD // gcd(WORD, width)

    def words(self, count: int) -> int:
        """Words that hold `count` codes."""
        width = self.format.bits
        return -(-count // (WORD // width)) if self.padded else bits.packed_size(count, width, WORD)

    def require_packing(self) -> None:
        """Raise RecipeError where no stable packing exists for the format."""
        require(self.format, self.activations)

    def specs(self, module: str, rows: int, columns: int) -> list[Spec]:
        """The tensors that store a [rows, columns] matrix of `module`."""
        f, groups = self.format, columns // self.format.block_size(columns)
        scale = Spec(f"{module}.weight_scale", SCALE_DTYPES[f.scale.type], (rows, groups))
        if self.kind != PACKED:
            dtype = torch.float8_e4m3fn if self.kind == FLOAT8 else torch.int8
            return [Spec(f"{module}.weight", dtype, (rows, columns)), scale]
        packed = Spec(f"{module}.weight_packed", torch.int32, (rows, self.words(columns)))
        specs = [packed, scale, Spec(f"{module}.weight_shape", torch.int64, (2,))]
        if f.zero is not None:
            specs.append(Spec(f"{module}.weight_zero_point", torch.int32, (self.words(rows), groups)))
        return specs

    def pack(self, module: str, q: QTensor, rows: int, start: int = 0) -> list[Stored]:
        """The stored tensors of `q`: all of a matrix of `rows` rows, or a run of whole words of them from `start` on.

        Each comes with the row of the stored tensor that it begins at: a word of zero points holds several rows.
        """
        parts = self._parts(module, q, rows)
        words = {f"{module}.weight_zero_point": self.words(start), f"{module}.weight_shape": 0}
        return [
            Stored(name, tensor, words.get(name, start))
            for name, tensor in parts.items()
            if not (start and name == f"{module}.weight_shape")
        ]

    def _parts(self, module: str, q: QTensor, rows: int) -> dict[str, torch.Tensor]:
        f = self.format
        scale = q.scale.to(SCALE_DTYPES[f.scale.type])
        if self.kind == FLOAT8:
            return {f"{module}.weight": q.codes.view(torch.float8_e4m3fn), f"{module}.weight_scale": scale}
        if self.kind == INT8:
            signed = (q.codes ^ 0x80).view(torch.int8)
            return {f"{module}.weight": signed, f"{module}.weight_scale": scale}
        out = {
            f"{module}.weight_packed": _words(q.codes, self),
            f"{module}.weight_scale": scale,
            f"{module}.weight_shape": torch.tensor([rows, q.shape[1]], dtype=torch.int64),
        }
        if q.zero is not None:
            codes = f.grid.nearest(q.zero)
            out[f"{module}.weight_zero_point"] = _words(codes.T.contiguous(), self).T.contiguous()
        return out

    def config(self, targets: list[str]) -> dict[str, Any]:
        """This scheme as one entry of `config_groups`."""
        f = self.format
        kind = "float" if f.code is E4M3 else "int"
        group = f.block if isinstance(f.block, int) else None
        activations = None
        if self.activations != "none":
            activations = arguments(8, kind, True, "token", None, dynamic=True)
        return {
            "targets": targets,
            "weights": arguments(f.bits, kind, f.zero is None, "group" if group else "channel", group, dynamic=False),
            "input_activations": activations,
            "output_activations": None,
            "format": self.kind,
        }


def arguments(
    bits: int, kind: str, symmetric: bool, strategy: str, group: int | None, *, dynamic: bool
) -> dict[str, Any]:
    """How numbers are rounded, in the words of config.json."""
    return {
        "num_bits": bits,
        "type": kind,
        "symmetric": symmetric,
        "strategy": strategy,
        "group_size": group,
        "dynamic": dynamic,
        "observer": None if dynamic else "minmax",
    }


def _words(codes: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """Codes [rows, n] packed along the row into int32 words, the last one padded with zeros."""
    width = scheme.format.bits
    if scheme.padded:
        lanes = torch.nn.functional.pad(codes, (0, scheme.words(codes.shape[1]) * (WORD // width) - codes.shape[1]))
        shifts = width * torch.arange(WORD // width)
        words = lanes.reshape(len(codes), -1, WORD // width).to(torch.int64) << shifts
        return words.sum(-1).to(torch.int32)
    packed: torch.Tensor = bits.pack(codes, width)
    short = -packed.shape[1] % 4
    if short:
        packed = torch.nn.functional.pad(packed, (0, short))
    return packed.reshape(-1).view(torch.int32).reshape(len(codes), -1)  # flat: one row may have any stride


def quantization_config(schemes: Mapping[Scheme, list[str]], ignore: Iterable[str], version: str) -> dict[str, Any]:
    """The `quantization_config` of config.json: modules by scheme, and linear modules that stay float.

    One scheme targets every Linear, and by name what lies outside the blocks: an embedding is no Linear, and vLLM's
    heads are of another class. Several name all their modules. `version` is the compressed-tensors release whose layout
    this is.
    """
    said: dict[str, list[str]] = {}  # schemes that differ only in the type of scales are one
    for scheme, modules in schemes.items():
        said.setdefault(json.dumps(scheme.config([])), []).extend(modules)
    if len(said) == 1:
        said = {config: ["Linear", *filter(_outside, modules)] for config, modules in said.items()}
    groups = {
        f"group_{i}": json.loads(config) | {"targets": targets} for i, (config, targets) in enumerate(said.items())
    }
    kinds = {scheme.kind for scheme in schemes}
    return {
        "quant_method": "compressed-tensors",
        "format": kinds.pop() if len(kinds) == 1 else MIXED,
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": sorted(ignore),
        "kv_cache_scheme": None,
        "version": version,
    }


def _outside(module: str) -> bool:
    """Whether a module belongs to no numbered block."""
    return re.search(r"\.\d+\.", module) is None


def scheme_of(group: Mapping[str, Any], scale: torch.dtype, where: str) -> Scheme:
    """The scheme that an entry of anyone's `config_groups` describes; FileError where we cannot decode it."""
    args = group.get("weights") or {}
    kind, width, strategy = args.get("type"), args.get("num_bits"), args.get("strategy")
    known = strategy in ("group", "channel", "tensor")
    if not known or kind not in ("int", "float") or (kind == "float" and width != 8):
        raise FileError(
            f"weights of {width}-bit {kind} per {strategy} cannot be decoded here",
            where=where,
            fix="Supported: int 1 to 8 bits and 8-bit float, per channel, group or tensor",
            foreign=strategy in STRATEGIES and kind in ("int", "float"),
        )
    size: Any = args.get("group_size")
    if strategy == "group" and not (isinstance(size, int) and size > 0):
        raise FileError(f"a group of {size} weights", where=where, fix="Repair group_size in quantization_config")
    block: Any = size if strategy == "group" else strategy
    types = {dtype: name for name, dtype in SCALE_DTYPES.items()}
    name = "fp8" if kind == "float" else f"int{width}"
    form = named(name, group=block, symmetric=bool(args.get("symmetric", True)), scale=types.get(scale, "fp32"))
    acts = group.get("input_activations")
    return Scheme(form, "none" if not acts else "fp8" if acts.get("type") == "float" else "int8")


def _codes(words: torch.Tensor, scheme: Scheme, count: int) -> torch.Tensor:
    """The inverse of `_words`: int32 [rows, words] -> uint8 [rows, count]."""
    width = scheme.format.bits
    if scheme.padded:
        shifts = width * torch.arange(WORD // width)
        lanes = (words.to(torch.int64)[..., None] >> shifts) & (2**width - 1)
        flat: torch.Tensor = lanes.to(torch.uint8).reshape(len(words), -1)
        return flat[:, :count].contiguous()
    found: torch.Tensor = bits.unpack(words.contiguous().view(torch.uint8), width, count)
    return found


def unpack(tensors: Mapping[str, torch.Tensor], scheme: Scheme) -> QTensor:
    """The QTensor that stored tensors, by suffix (weight_packed, weight_scale, ...), hold; our own decoder."""
    f = scheme.format
    scale = tensors["weight_scale"].to(torch.float32)
    if "weight_packed" not in tensors:
        stored = tensors["weight"]
        codes = stored.view(torch.uint8)
        if stored.dtype != torch.float8_e4m3fn:
            codes = codes + 2 ** (f.bits - 1)  # modulo 256: from signed to counted from the lowest
        scale = scale.reshape(1, 1) if f.block == "tensor" else scale.reshape(codes.shape[0], -1)
        return QTensor(f, codes, scale)
    rows, columns = (int(n) for n in tensors["weight_shape"])
    codes = _codes(tensors["weight_packed"], scheme, columns)
    zero = None
    if f.zero is not None:
        packed = tensors["weight_zero_point"].T.clone(memory_format=torch.contiguous_format)
        zero = f.grid.decode(_codes(packed, scheme, rows).T.contiguous())
    return QTensor(f, codes, scale.reshape(rows, -1), zero)


def decode_by_library(tensors: Mapping[str, torch.Tensor], scheme: Scheme) -> torch.Tensor:
    """The same stored tensors as the compressed-tensors library itself decodes them, in the scale's dtype.

    Codes in the layout of other releases than the installed one are laid out anew for it.
    """
    f, padded = scheme.format, not dense(installed())
    if scheme.kind == PACKED and f.bits in UNEVEN and scheme.padded != padded:
        q, own = unpack(tensors, scheme), replace(scheme, padded=padded)
        parts = {name.removeprefix("m."): part for name, part in own._parts("m", q, q.shape[0]).items()}
        tensors = {**tensors, **{name: parts[name] for name in parts if name != "weight_scale"}}
    zeros = tensors.get("weight_zero_point")
    if zeros is not None and len(zeros) == 1:
        # Releases from 0.20 on view the transposed words as bytes, which fails where a single row has another stride.
        tensors = {**tensors, "weight_zero_point": zeros.as_strided(zeros.shape, (1, 1))}
    compressor, arguments = _library(scheme)
    weight: torch.Tensor = compressor.decompress({"weight_zero_point": None, **tensors}, arguments)["weight"]
    return weight


def round_by_library(x: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """Inputs `x` [..., columns] as the library rounds them, each token by its own scale, and decodes them again."""
    from compressed_tensors.quantization import fake_quantize

    rounded: torch.Tensor = fake_quantize(*_per_token(x, scheme))
    return rounded.reshape(x.shape)


def count_inputs(x: torch.Tensor, scheme: Scheme) -> Usage:
    """How often each code occurs where the library rounds inputs `x` [..., columns]."""
    from compressed_tensors.quantization import quantize

    codes, code = quantize(*_per_token(x, scheme)), named(scheme.activations).code
    if code is E4M3:
        return Usage.of(codes.to(torch.float8_e4m3fn).view(torch.uint8), code)
    return Usage.of((codes.to(torch.int16) + 128).to(torch.uint8), code)


def _per_token(x: torch.Tensor, scheme: Scheme) -> tuple[Any, ...]:
    """What the library's functions take: `x` as tokens, the scale and zero point of each, and its description."""
    from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp

    arguments = _library(scheme)[1].input_activations
    tokens = x.reshape(1, -1, x.shape[-1])  # it takes the first two axes to count tokens
    return tokens, *compute_dynamic_scales_and_zp(tokens, arguments, torch.nn.Module()), arguments


@lru_cache
def _library(scheme: Scheme) -> tuple[Any, Any]:
    """The library's own compressor and description of a scheme."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    return BaseCompressor.get_value_from_registry(scheme.kind), QuantizationScheme(**scheme.config(["Linear"]))
