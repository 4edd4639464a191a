"""Tiny random models of many architectures, saved as real model folders with the bundled tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers

import bitwright
from bitwright.models.language.blocks import Decoder, Passage

DEMO = Path(bitwright.__file__).parent / "content" / "demo-model"

_LLAMA: dict[str, Any] = dict(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=1024,
    max_position_embeddings=128,
    head_dim=16,
)
_PLAIN = {k: v for k, v in _LLAMA.items() if k not in ("num_key_value_heads", "head_dim")}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", dict(tie_word_embeddings=False)),
    "mistral": ("MistralConfig", dict(sliding_window=16)),
    "qwen2": ("Qwen2Config", dict(tie_word_embeddings=True)),
    "qwen3": ("Qwen3Config", {}),
    "gemma": ("GemmaConfig", {}),
    "gemma3": ("Gemma3TextConfig", dict(sliding_window=16, layer_types=["sliding_attention", "full_attention"])),
    "phi": ("PhiConfig", {}),
    "phi3": ("Phi3Config", dict(pad_token_id=0)),
    "opt": ("OPTConfig", dict(ffn_dim=128, word_embed_proj_dim=64)),
    "gpt_neox": ("GPTNeoXConfig", {}),
    "gpt2": ("GPT2Config", dict(n_embd=64, n_layer=2, n_head=4, n_positions=128, n_inner=128)),
    "mixtral": ("MixtralConfig", dict(num_local_experts=4, num_experts_per_tok=2)),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64, decoder_sparse_step=1, mlp_only_layers=[]),
    ),
}
STACKED: dict[str, tuple[str, dict[str, Any]]] = {
    # Experts of a block in one tensor: [experts, inputs, outputs] in the first three, then [experts, outputs, inputs].
    "gpt_oss": ("GptOssConfig", dict(intermediate_size=96, num_local_experts=4, num_experts_per_tok=2, pad_token_id=0)),
    "llama4": (
        "Llama4TextConfig",
        dict(
            intermediate_size=96,
            intermediate_size_mlp=128,
            num_local_experts=4,
            interleave_moe_layer_step=1,
            attention_chunk_size=64,
            pad_token_id=0,
        ),
    ),
    "aria": (
        "AriaTextConfig",
        dict(intermediate_size=96, moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1, pad_token_id=0),
    ),
    "granitemoe": ("GraniteMoeConfig", dict(intermediate_size=96, num_local_experts=4, num_experts_per_tok=2)),
    "jetmoe": ("JetMoeConfig", dict(intermediate_size=96, kv_channels=16, num_local_experts=4, num_experts_per_tok=2)),
    "qwen3_5_moe": (
        "Qwen3_5MoeTextConfig",
        dict(
            moe_intermediate_size=96,
            shared_expert_intermediate_size=96,
            num_experts=4,
            num_experts_per_tok=2,
            layer_types=["full_attention", "full_attention"],
        ),
    ),
}


def make(
    kind: str, folder: Path, *, dtype: torch.dtype = torch.bfloat16, max_shard: str = "5GB", **changes: Any
) -> Path:
    """Save a random `kind` model under `folder`, its weights scaled so that logits are not flat; returns the folder."""
    name, extra = {**CONFIGS, **STACKED}[kind]
    base = (
        dict(vocab_size=1024)
        if kind == "gpt2"
        else _LLAMA
        if "num_key_value" in str(_LLAMA) and kind not in ("opt", "gpt_neox", "phi")
        else _PLAIN
    )
    config = getattr(transformers, name)(**{**base, **extra, **changes, "bos_token_id": 0, "eos_token_id": 0})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for param_name, param in model.named_parameters():
            if param.dim() >= 2:
                param.copy_(torch.randn(param.shape) * (1.5 / param.shape[-1] ** 0.5))
            elif "norm" not in param_name and "ln_" not in param_name:
                param.copy_(torch.randn(param.shape) * 0.1)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / file, folder / file)
    return folder


def answer(decoder: Decoder, ids: torch.Tensor) -> torch.Tensor:
    """The logits of a decoder, block by block."""
    passage = Passage(ids)
    hidden = decoder.enter(passage)
    for block in range(decoder.arch.count):
        with decoder.loaded(block):
            hidden = decoder.run(block, hidden, passage)
    return decoder.logits(hidden)
