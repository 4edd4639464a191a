"""The transformers config that the metadata of a GGUF file describes: `header` the other way round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from bitwright.errors import ModelError
from bitwright.files.containers.gguf.families import FAMILIES, Family
from bitwright.files.containers.gguf.names import llama3_divisors
from bitwright.files.gguf import MARK, Gguf

KEYS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "expert_feed_forward_length": "moe_intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.layer_norm_epsilon": "layer_norm_eps",
    "attention.sliding_window": "sliding_window",
    "rope.freq_base": "rope_theta",
    "rope.freq_base_swa": "rope_local_base_freq",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "use_parallel_residual": "use_parallel_residual",
}
"""Metadata, without the architecture's prefix -> the config's key."""
NEEDED = ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count")
LLAMA3 = [(factor, 1.0, 4.0, 8192) for factor in (8.0, 32.0, 16.0, 4.0)]
"""Factor, low and high frequency factor and context that releases of Llama 3 stretch rotary embedding by."""


def config_of(found: Gguf) -> dict[str, Any]:
    """The config, as config.json would say it.

    ModelError that names what is not understood: an architecture, numbers per layer, a rotary embedding.
    """
    arch = found.facts.get("general.architecture")
    kind = next((kind for kind, family in FAMILIES.items() if family.name == arch), None)
    if kind is None:
        known = ", ".join(dict.fromkeys(family.name for family in FAMILIES.values()))
        raise ModelError(
            f"a GGUF file of the architecture {arch!r}, whose network is not known here",
            where=str(found.path), fix=f"Known: {known}; give the folder that it was made from", foreign=True,
        )  # fmt: skip
    family, facts = FAMILIES[kind], _facts(found, str(arch))
    tensors = {tensor.name: tensor for tensor in found.tensors}
    if "token_embd.weight" not in tensors:
        raise ModelError("holds no token_embd.weight", where=str(found.path), fix="Download it again")
    if family.name == "llama" and "expert_count" in facts:
        kind = "mixtral"
    config = {KEYS[key]: _decimal(value) for key, value in facts.items() if key in KEYS}
    config["sliding_window"] = config.get("sliding_window") or None
    if family.activation[0] == "gelu" and kind == "gpt_neox":
        config["rotary_pct"] = facts["rope.dimension_count"] / (config["hidden_size"] / config["num_attention_heads"])
    if kind == "mixtral":
        config["num_local_experts"] = config.pop("num_experts")
    if "head_dim" not in config and family.turned and "rope.dimension_count" in facts:
        config["head_dim"] = facts["rope.dimension_count"]
    config |= {
        **MARK,
        "model_type": kind,
        "vocab_size": tensors["token_embd.weight"].rows,
        "pad_token_id": None,
        "tie_word_embeddings": family.headless or "output.weight" not in tensors,
    }
    config |= {key: value for key, runs in family.fixed.items() if (value := runs(config)) is not None}
    if "blk.0.attn_q.bias" in tensors and family.turned:
        config["attention_bias"] = True
    if scaling := _scaling(found, facts, family, config):
        config["rope_parameters"] = {"rope_theta": config.pop("rope_theta", 10000.0), **scaling}
    for token in ("bos", "eos", "padding"):
        number = found.facts.get(f"tokenizer.ggml.{token}_token_id")
        if isinstance(number, int):
            config[f"{token.removesuffix('ding')}_token_id"] = number
    return config


def _facts(found: Gguf, arch: str) -> dict[str, Any]:
    """The architecture's own metadata, without its prefix; ModelError where what is needed is absent or no number."""
    prefix = f"{arch}."
    facts = {key.removeprefix(prefix): value for key, value in found.facts.items() if key.startswith(prefix)}
    for key in NEEDED:
        if key not in facts:
            raise ModelError(f"its metadata does not say {prefix}{key}", where=str(found.path), fix="Download it again")
    for key in KEYS.keys() & facts.keys():
        if f"{prefix}{key}" in found.lists:
            raise ModelError(
                f"{prefix}{key} has a number per layer, which the networks known here have not",
                where=str(found.path), fix="Give the folder that it was made from", foreign=True,
            )  # fmt: skip
        if not isinstance(facts[key], int | float):
            raise ModelError(
                f"{prefix}{key} is {facts[key]!r}, no number", where=str(found.path), fix="Download it again"
            )
    return facts


def _decimal(value: Any) -> Any:
    """A float32 as the shortest decimal that means it: 1e-05 and not 9.99999975e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _scaling(found: Gguf, facts: Mapping[str, Any], family: Family, config: Mapping[str, Any]) -> dict[str, Any]:
    """How rotary embedding is stretched; empty where it is not."""
    kind = facts.get("rope.scaling.type", "none")
    divisors = next((tensor for tensor in found.tensors if tensor.name == "rope_freqs.weight"), None)
    if divisors is not None:
        raw = found.raw(divisors, 0, divisors.blocks) if divisors.type is not None else np.zeros(0)
        values = torch.from_numpy(raw.reshape(-1).view(np.float32).copy())
        for factor, low, high, context in LLAMA3:
            given = {
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
                "original_max_position_embeddings": context,
            }  # fmt: skip
            tried = {**config, "rope_parameters": {"rope_theta": config.get("rope_theta", 10000.0), **given}}
            if family.turned and torch.equal(llama3_divisors(tried), values):
                return given
        raise ModelError(
            "its divisors of rotary frequencies are those of no known release of Llama 3",
            where=f"{found.path}: {divisors.name}", fix="Give the folder that it was made from", foreign=True,
        )  # fmt: skip
    factors = any("rope_factors" in tensor.name for tensor in found.tensors)
    if kind in ("none", "") and not factors:
        return {}
    scaled = {
        "rope_type": kind,
        "factor": facts.get("rope.scaling.factor"),
        "original_max_position_embeddings": facts.get("rope.scaling.original_context_length"),
        "extrapolation_factor": facts.get("rope.scaling.yarn_ext_factor"),
        "attention_factor": facts.get("rope.scaling.yarn_attn_factor"),
        "beta_fast": facts.get("rope.scaling.yarn_beta_fast"),
        "beta_slow": facts.get("rope.scaling.yarn_beta_slow"),
    }
    if kind not in ("linear", "yarn") or factors:
        raise ModelError(
            f"its rotary embedding is stretched by {'factors of its own' if factors else kind}, which is not read here",
            where=str(found.path), fix="Give the folder that it was made from", foreign=True,
        )  # fmt: skip
    return {key: _decimal(value) for key, value in scaled.items() if value is not None}
