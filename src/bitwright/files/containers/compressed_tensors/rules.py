"""What compressed-tensors can store; needs no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.grid import E4M3, INT
from bitwright.errors import RecipeError
from bitwright.files.container import refuse
from bitwright.files.held import Cache, Held, Module

SCALES = ("bf16", "fp16", "fp32")
"""Types of scales."""
GROUPS = (128, 64, 32)
"""Groups that vLLM's fastest kernels take, besides whole rows (MARLIN_SUPPORTED_GROUP_SIZES in
vllm/model_executor/layers/quantization/utils/marlin_utils.py of 0.33.0); transformers reads any that divide a row."""
UNEVEN = (3, 5, 6, 7)
"""Bits that do not divide a word: packed densely since release 0.18, and before so that no code crossed its end."""


def dense(release: str) -> bool:
    """Whether a release of the library packs `UNEVEN` codes densely."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) >= (0, 18)


def reads_zeros(release: str) -> bool:
    """Whether transformers loads packed zero points with a release: 0.18 to 0.20 allocate them at their full size."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is None or not (0, 18) <= (int(found[1]), int(found[2])) <= (0, 20)


@cache
def installed() -> str:
    """The release that is installed."""
    return version("compressed-tensors")


def require(format: Format, activations: str = "none") -> None:
    """Raise RecipeError where no stable packing exists for the format, or none with such activations."""
    integer = format.bits in INT and format.code is INT[format.bits]
    if integer and format.bits in UNEVEN and not dense(installed()):
        raise RecipeError(
            f"compressed-tensors {installed()} has no stable packing for {format.name}",
            where="format",
            key="layer.format",
            fix="Use int2, int4, int8 or fp8; or install compressed-tensors 0.18 or later, which packs it densely; or "
            "--simulate to write decoded float weights",
        )
    if not (integer or format.code is E4M3) or format.block == "tensor" or format.scale.type not in SCALES:
        raise RecipeError(
            f"compressed-tensors has no stable packing for {format.name}",
            where="format",
            key="layer.group" if format.block == "tensor" else "layer.format",
            fix="Use an integer format or fp8 per channel or group, another --to, or --simulate to write decoded float "
            "weights",
        )
    if activations != "none" and (format.block != "channel" or format.zero is not None or format.bits != 8):
        raise RecipeError(
            f"{activations} activations need symmetric 8-bit weights per channel, not {format.name}",
            where="activations",
            key="layer.activations",
            fix="Use --bits 8 --group channel, or leave activations alone",
        )
    if (format.code is E4M3) != (activations == "fp8") and activations != "none":
        raise RecipeError("weights and activations must share a type", where="activations", fix="Use fp8 with fp8",
                          key="layer.activations")  # fmt: skip


def require_table(format: Format) -> None:
    """Raise RecipeError where no runtime reads an embedding in the format."""
    integer = format.bits in INT and format.code is INT[format.bits]
    if not integer or format.zero is not None:
        raise refuse(
            f"compressed-tensors holds embeddings as integers without zero points, not as {format.name}"
            f"{' with them' if integer else ''}",
            "Use int8 or int4, or leave the embedding float", "embedding",
        )  # fmt: skip


def packed(held: Held, lookup: bool) -> bool:
    """Whether codes are packed into words: 8-bit ones of an embedding are not, because transformers (5.23) looks for
    the weights of an embedding while it loads it (PreTrainedModel._init_weights), and so that a tied head finds them.
    """
    integer = held.format.code is not E4M3
    return integer and held.activations == "none" and not (lookup and held.format.bits == 8)


def unpacked(modules: Sequence[Module], network: bool) -> str | None:
    """Why transformers must unpack these matrices while it loads them; None where it need not.

    `network`: it must whatever they are.
    """
    if any(module.held and module.role == "expert" for module in modules):
        return "it fuses experts"
    if any(module.held and module.role == "embedding" and packed(module.held, lookup=True) for module in modules):
        return "it cannot hold a packed embedding"
    return "it cannot hold this network packed" if network else None


def require_cache(cache: Cache, modules: Sequence[Module], network: bool) -> None:
    """Raise RecipeError where no runtime would round keys and values: transformers must unpack the matrices, and then
    leaves the cache as it is; vLLM reads fp8 alone.
    """
    why = unpacked(modules, network)
    if why is not None and named(cache.format).code is not E4M3:
        raise refuse(
            f"no runtime would round keys and values to {cache.format}: transformers unpacks this folder as it loads "
            f"it ({why}), and then leaves them as they are",
            "Use --kv-cache fp8, which vLLM reads, or leave it out", "kv_cache",
        )  # fmt: skip


def require_together(modules: Sequence[Module], network: bool) -> None:
    """Raise RecipeError where a folder with an embedding must be decoded while it is loaded, in more than one way.

    transformers then takes the bits and the zero points of the first group for all (get_dense_scheme and
    get_experts_scheme in integrations/compressed_tensors.py, 5.23); the size of groups follows from the scales.
    """
    why, tables = unpacked(modules, network), [module.role == "embedding" for module in modules]
    decoders: dict[Any, Format] = {}
    for module, table in zip(modules, tables, strict=True):
        if module.held:
            f, activations = module.held
            decoders[packed(module.held, table), f.code.bits, f.zero is None, activations] = f
    if why is None or len(decoders) == 1 or not any(tables):
        return
    ways = " and ".join(f.name + ("" if f.zero is None else " with zero points") for f in decoders.values())
    raise refuse(
        f"transformers decodes this folder while it loads it ({why}), and all of it in one way, not {ways}",
        "Give all matrices one format, without zero points; or leave embedding and head float; or use --simulate",
        "embedding",
    )
