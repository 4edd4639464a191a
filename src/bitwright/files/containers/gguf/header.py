"""The metadata of a GGUF file, but for its tokenizer: what the model is called and made of.

Keys and types: the package `gguf`; what is written for which architecture: llama.cpp, `conversion/*.py`
(`set_gguf_parameters`). Names, sizes and licences follow the package's own reading of a folder and its model card.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_VERSION, GGUFType, GGUFWriter, LlamaFileType, Metadata, RopeScalingType, size_label
from gguf.gguf_writer import GGUFValue
from yaml import YAMLError  # type: ignore[import-untyped]

from bitwright.errors import ModelError
from bitwright.files.containers.gguf.families import Config, family_of, rope, rotary_size
from bitwright.files.containers.gguf.names import Target

Facts = dict[str, GGUFValue]
"""Metadata: key -> value with its type."""
SCALINGS = {
    "linear": RopeScalingType.LINEAR,
    "yarn": RopeScalingType.YARN,
    "longrope": RopeScalingType.LONGROPE,
    "su": RopeScalingType.LONGROPE,
}
"""Kinds of rotary embedding that runtimes scale themselves; `llama3` comes as a tensor of divisors."""
UNSCALED = ("default", "llama3")
BASE = 10000
"""The base of rotary frequencies where a file says none."""


def _scaling(config: Config) -> RopeScalingType | None:
    """How positions are scaled; ModelError for a kind that no runtime of GGUF files knows."""
    kind = rope(config).get("rope_type", rope(config).get("type", "default"))
    family = family_of(config)
    known = kind in SCALINGS and ("rope_scaling_type" in family.fields or bool(rope(config).get("long_factor")))
    if not known and kind not in UNSCALED[: 1 + family.turned]:
        raise ModelError(
            f"no {family.name} of GGUF scales its rotary embedding by the rule {kind!r}",
            where="config.json: rope_parameters",
            fix="Choose another output",
        )
    return SCALINGS.get(kind)


def _scaled(key: str, *kinds: RopeScalingType, other: str = "") -> Callable[[Config], Any]:
    """What the rotary parameters say under `key`, for these kinds of scaling."""

    def value(config: Config) -> Any:
        return rope(config).get(key, rope(config).get(other)) if _scaling(config) in kinds else None

    return value


def _longrope(config: Config) -> float | None:
    """By what attention grows with the context. Source: `_compute_longrope_parameters` of transformers."""
    if not rope(config).get("long_factor"):
        return None
    original = {**config, **rope(config)}["original_max_position_embeddings"]
    scale = config["max_position_embeddings"] / original
    if scale <= 1:
        return 1.0
    if _scaling(config) is RopeScalingType.YARN:
        return 0.1 * math.log(scale) + 1.0
    return math.sqrt(1 + math.log(scale) / math.log(original))


def _of(*keys: str) -> Callable[[Config], Any]:
    """The first of these keys that a config has."""
    return lambda config: next((config[key] for key in keys if config.get(key) is not None), None)


LINEAR, YARN, LONGROPE = RopeScalingType.LINEAR, RopeScalingType.YARN, RopeScalingType.LONGROPE
FIELDS: dict[str, Callable[[Config], Any]] = {
    "block_count": _of("num_hidden_layers"),
    "context_length": _of("max_position_embeddings"),
    "embedding_length": _of("hidden_size"),
    "feed_forward_length": _of("intermediate_size"),
    "head_count": _of("num_attention_heads"),
    "head_count_kv": _of("num_key_value_heads"),
    "rope_scaling_type": _scaling,
    "rope_scaling_factor": _scaled("factor", LINEAR, YARN),
    "rope_scaling_orig_ctx_len": _scaled("original_max_position_embeddings", YARN),
    "rope_scaling_yarn_ext_factor": _scaled("extrapolation_factor", YARN),
    "rope_scaling_yarn_attn_factor": _scaled("attention_factor", YARN, other="attn_factor"),
    "rope_scaling_yarn_beta_fast": _scaled("beta_fast", YARN),
    "rope_scaling_yarn_beta_slow": _scaled("beta_slow", YARN),
    "rope_scaling_attn_factors": _longrope,
    "rope_freq_base": lambda config: rope(config).get("rope_theta"),
    "rope_freq_base_swa": lambda config: rope(config, "sliding_attention").get("rope_theta"),
    "rope_dimension_count": rotary_size,
    "layer_norm_rms_eps": _of("rms_norm_eps"),
    "layer_norm_eps": _of("layer_norm_eps"),
    "expert_count": _of("num_local_experts", "num_experts"),
    "expert_used_count": _of("num_experts_per_tok"),
    "expert_feed_forward_length": _of("moe_intermediate_size"),
    "key_length": _of("head_dim"),
    "value_length": _of("head_dim"),
    "vocab_size": _of("vocab_size"),
    "attn_logit_softcapping": _of("attn_logit_softcapping"),
    "final_logit_softcapping": _of("final_logit_softcapping"),
    "sliding_window": _of("sliding_window"),
    "parallel_residual": _of("use_parallel_residual"),
    "original_context": lambda config: {**config, **rope(config)}.get("original_max_position_embeddings"),
    "base": lambda config: None if rope(config).get("rope_theta", BASE) == BASE else rope(config)["rope_theta"],
    "window": lambda config: config.get("sliding_window") or 0,
}
"""Field -> its value by a config; None is not written. Each is written by the method `add_...` of `GGUFWriter`."""
WRITTEN_AS = {"base": "rope_freq_base", "original_context": "rope_scaling_orig_ctx_len", "window": "sliding_window"}
"""Fields that some architectures write always, or only where they must."""


def facts(folder: Path, config: Config, tensors: Iterable[Target], file_type: LlamaFileType) -> Facts:
    """The metadata of a file with these tensors, of the model in `folder`.

    ModelError for an unknown architecture or rotary embedding, and for a model card that cannot be read.
    """
    family = family_of(config)
    writer = GGUFWriter(None, family.name)
    writer.add_type(GGUFType.MODEL)
    _describe(writer, folder, list(tensors))
    for field in family.fields:
        value = FIELDS[field](config)
        if value is not None:
            getattr(writer, f"add_{WRITTEN_AS.get(field, field)}")(value)
    _scaling(config)
    writer.add_file_type(file_type)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    found: Facts = writer.kv_data[0]
    return found


def _describe(writer: GGUFWriter, folder: Path, tensors: list[Target]) -> None:
    """Add `general.*`: name, size, licence, languages, what it was made from, sampling."""
    sizes = {target.name: math.prod(target.shape) for target in tensors}
    experts = [target for target in tensors if "_exps." in target.name]
    shared = sum(sizes.values()) - sum(sizes[target.name] for target in experts)
    count = experts[0].shape[0] if experts else 0
    try:
        metadata = Metadata.load(None, folder, None, sum(sizes.values()))
    except (YAMLError, UnicodeDecodeError) as error:
        raise ModelError(
            f"the head of the model card is not YAML ({' '.join(str(error).split())})",
            where=str(folder / "README.md"),
            fix="Correct it, or remove the file",
        ) from error
    except (AttributeError, TypeError) as error:
        raise ModelError(
            f"README.md, config.json or generation_config.json is not what these files hold ({error})",
            where=str(folder),
            fix="Download them again",
        ) from error
    metadata.name = metadata.name or folder.name
    if metadata.sampling_penalty_repeat is None:  # versions of the package up to 0.19 do not know it by this name
        metadata.sampling_penalty_repeat = Metadata.load_generation_config(folder).get("repetition_penalty")
    if metadata.size_label is None:
        each = sum(sizes[target.name] // target.shape[0] for target in experts)
        metadata.size_label = size_label(sum(sizes.values()), shared, each, count)
    languages: list[Any] | None = metadata.languages
    if languages:  # YAML reads the code of Norwegian as false
        metadata.languages = ["no" if language is False else language for language in languages]
    metadata.set_gguf_meta_model(writer)


def typed(file_type: LlamaFileType) -> Facts:
    """What a file says of its types, for metadata that come from another file."""
    writer = GGUFWriter(None, "")
    writer.add_file_type(file_type)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    found: Facts = writer.kv_data[0]
    found.pop("general.architecture", None)
    return found
