"""Architectures that GGUF files are written for: what each is called, and where it departs from the rest.

The names of tensors come from the package `gguf`, the changes from llama.cpp's converter (`conversion/*.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gguf import MODEL_ARCH, MODEL_ARCH_NAMES

from bitwright.errors import ModelError

Config = Mapping[str, Any]
"""A transformers config of a decoder, as `to_dict()` gives it."""


@dataclass(frozen=True)
class Family:
    """One architecture. `fields` are the metadata of its own, by the names of `header.FIELDS`, in the file's order."""

    arch: MODEL_ARCH
    fields: tuple[str, ...]
    turned: bool = False
    """Whether queries and keys go from halves to pairs: llama.cpp turns neighbouring rows of a head by one angle."""
    fused: bool = False
    """Whether queries, keys and values lie together head by head, and go one after another."""
    norm: float = 0.0
    """What is added to the gains of its norms: Gemma stores gain - 1."""
    activation: tuple[str, ...] = ("silu", "swish")
    """What its runtimes compute between the matrices of a feed-forward layer: files do not say it."""
    fixed: Mapping[str, Callable[[Config], Any]] = field(default_factory=dict)
    """What else files do not say, as its runtimes have it: key of the config -> value."""
    windowed: bool = False
    """Whether its runtimes keep to a window of tokens where a config has one."""
    headless: bool = False
    """Whether its output is the embedding in any case."""

    @property
    def name(self) -> str:
        """What GGUF calls it: the prefix of its metadata."""
        return MODEL_ARCH_NAMES[self.arch]


COMMON = (
    *("block_count", "context_length", "embedding_length", "feed_forward_length", "head_count", "head_count_kv"),
    *("rope_scaling_type", "rope_scaling_factor", "rope_scaling_orig_ctx_len", "rope_scaling_yarn_ext_factor"),
    *("rope_scaling_yarn_attn_factor", "rope_scaling_yarn_beta_fast", "rope_scaling_yarn_beta_slow"),
    *("rope_freq_base", "rope_freq_base_swa", "layer_norm_rms_eps", "layer_norm_eps"),
    *("expert_count", "expert_used_count", "key_length", "value_length"),
)
"""What the converter writes for any decoder that it has no rule of its own for."""
GELU = ("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast")


def _windows(period: int) -> Callable[[Config], list[str]]:
    """Kinds of blocks: the last of so many sees all tokens, the others a window of them."""
    return lambda config: [
        "sliding_attention" if (block + 1) % period else "full_attention"
        for block in range(config["num_hidden_layers"])
    ]


def _gemma(period: int, largest: int) -> dict[str, Callable[[Config], Any]]:
    """What runtimes take for granted of a Gemma; the one of `largest` blocks divides its scores by another number."""

    def scalar(config: Config) -> int:
        whole = config["hidden_size"] // config["num_attention_heads"]
        return int(whole) if config["num_hidden_layers"] == largest else head_size(config)

    return {"query_pre_attn_scalar": scalar, "layer_types": _windows(period), "use_bidirectional_attention": _nothing}


def _nothing(config: Config) -> None:
    return None


LLAMA = Family(MODEL_ARCH.LLAMA, (*COMMON, "vocab_size", "rope_dimension_count"), turned=True)
FAMILIES = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "mixtral": LLAMA,
    "qwen2": Family(MODEL_ARCH.QWEN2, COMMON),
    "qwen3": Family(MODEL_ARCH.QWEN3, COMMON),
    "qwen3_moe": Family(
        MODEL_ARCH.QWEN3MOE,
        (*COMMON, "expert_feed_forward_length"),
        fixed={"norm_topk_prob": lambda _: True, "decoder_sparse_step": lambda _: 1, "mlp_only_layers": _nothing},
    ),
    "gemma2": Family(
        MODEL_ARCH.GEMMA2,
        (
            *("context_length", "embedding_length", "block_count", "feed_forward_length", "head_count"),
            *("head_count_kv", "layer_norm_rms_eps", "key_length", "value_length"),
            *("attn_logit_softcapping", "final_logit_softcapping", "sliding_window", "base"),
        ),
        norm=1.0,
        activation=GELU,
        fixed=_gemma(2, 46),
        windowed=True,
        headless=True,
    ),
    "gemma3_text": Family(
        MODEL_ARCH.GEMMA3,
        (*COMMON, "final_logit_softcapping", "sliding_window"),
        norm=1.0,
        activation=GELU,
        fixed={**_gemma(6, 62), "attn_logit_softcapping": _nothing},
        windowed=True,
    ),
    "phi3": Family(
        MODEL_ARCH.PHI3,
        (
            *("context_length", "original_context", "embedding_length", "feed_forward_length"),
            *("block_count", "head_count", "head_count_kv", "layer_norm_rms_eps", "rope_dimension_count"),
            *("rope_freq_base", "window", "rope_scaling_attn_factors"),
        ),
    ),
    "gpt_neox": Family(
        MODEL_ARCH.GPTNEOX,
        (
            *("context_length", "embedding_length", "block_count", "feed_forward_length", "rope_dimension_count"),
            *("head_count", "parallel_residual", "layer_norm_eps", "base"),
        ),
        fused=True,
        activation=GELU,
    ),
}
"""model_type of transformers -> family."""


def family_of(config: Config) -> Family:
    """The family of a config; ModelError that names the known ones where there is none."""
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise ModelError(
            f"no GGUF file can be written for the architecture {kind!r}",
            where="config.json: model_type",
            fix=f"Known: {', '.join(FAMILIES)}; choose another output",
        )
    return FAMILIES[kind]


def require_followed(config: Config) -> None:
    """Raise ModelError for a config whose network runtimes of GGUF files would compute otherwise."""
    family = family_of(config)
    activation = config.get("hidden_activation") or config.get("hidden_act")
    if activation is not None and activation not in family.activation:
        raise _unlike(family, "hidden_act", family.activation[0], activation)
    for key, expected in family.fixed.items():
        value = expected(config)
        if (config.get(key, value) or None) != (value or None):
            raise _unlike(family, key, value, config[key])
    if rotary_size(config) != head_size(config) and "rope_dimension_count" not in family.fields:
        raise _unlike(family, "partial_rotary_factor", 1, rotary_size(config) / head_size(config))


def notes(config: Config) -> list[str]:
    """What runtimes of GGUF files leave out of a network, where it matters for long texts only."""
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    if not window or window >= config["max_position_embeddings"] or family_of(config).windowed:
        return []
    return [f"runtimes of GGUF files look at all tokens, not at the last {window} as this network does"]


def _unlike(family: Family, key: str, value: Any, given: Any) -> ModelError:
    return ModelError(
        f"runtimes of GGUF files compute any {family.name} with {key} {value!r}, not {given!r}",
        where=f"config.json: {key}",
        fix="Choose another output",
    )


def rope(config: Config, kind: str = "full_attention") -> Mapping[str, Any]:
    """The parameters of rotary embedding, of layers of one kind where a config has several."""
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    found: Mapping[str, Any] = given.get(kind) or (given if kind == "full_attention" else {})
    return found


def head_size(config: Config) -> int:
    """Numbers per head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def rotary_size(config: Config) -> int:
    """Numbers per head that are turned by position."""
    share = {"partial_rotary_factor": 1.0, **config, **rope(config)}["partial_rotary_factor"]
    return int(share * head_size(config))
