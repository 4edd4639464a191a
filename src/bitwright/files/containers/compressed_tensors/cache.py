"""Keys and values that are rounded as a model runs: what `kv_cache_scheme` says, and what the library makes of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from bitwright.core.formats import named
from bitwright.core.grid import E4M3
from bitwright.files.container import refuse
from bitwright.files.containers.compressed_tensors.layout import arguments
from bitwright.files.containers.compressed_tensors.rules import installed
from bitwright.files.held import Cache

SCHEME = "kv_cache_scheme"
"""The key of `quantization_config`."""
SCALES = (".k_scale", ".v_scale")
"""How the names of the scales end; they are parameters of attentions."""


def describe(format: str, heads: bool) -> dict[str, Any]:
    """The value of `kv_cache_scheme`: symmetric, and fixed before the model runs."""
    code = named(format).code
    kind = "float" if code is E4M3 else "int"
    return arguments(code.bits, kind, True, "attn_head" if heads else "tensor", None, dynamic=False)


def find(format: str, network: Any, heads: bool) -> Cache:
    """How keys and values of a network, which may be without weights, are held in a format.

    vLLM takes fp8 with one scale per attention alone, so that heads have scales of their own in other formats only.
    RecipeError where the library cannot apply that to the network, or finds no attention in it.
    """
    heads = heads and named(format).code is not E4M3
    where = f"compressed-tensors {installed()}"
    try:
        found = shapes(describe(format, heads), network)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())[:120]
        raise refuse(
            f"{where} cannot round keys and values of {type(network).__name__} ({why})", "Leave --kv-cache out",
            "kv_cache",
        ) from error  # fmt: skip
    if not found:
        raise refuse(
            f"{where} finds no attention in {type(network).__name__} whose keys and values it would round",
            "Leave --kv-cache out", "kv_cache",
        )  # fmt: skip
    return Cache(format, heads, found)


def shapes(scheme: Mapping[str, Any], network: Any) -> dict[str, tuple[int, ...]]:
    """The scales that the library looks for in a network under a scheme, by name, and their shapes.

    Found by having it prepare a copy without weights, as transformers does on loading. Raises what it raises.
    """
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config

    bare = copy.deepcopy(network).to("meta")
    # Status: what is there is quantized, so that only what the files hold is made room for.
    config = QuantizationConfig(config_groups={}, kv_cache_scheme=dict(scheme), quantization_status="compressed")
    apply_quantization_config(bare, config)
    return {name: tuple(param.shape) for name, param in bare.named_parameters() if name.endswith(SCALES)}


def round_kept(x: torch.Tensor, scale: torch.Tensor, scheme: Mapping[str, Any]) -> torch.Tensor:
    """Keys or values `x` [batch, heads, tokens, width] as the library rounds them, and decodes them again."""
    from compressed_tensors.quantization import QuantizationArgs, fake_quantize

    rounded: torch.Tensor = fake_quantize(x, scale.to(x), None, QuantizationArgs(**scheme))
    return rounded
