"""Tensors of GGUF files: what is refused, and where rows go. What is right is in test_converter.py."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from bitwright.errors import ModelError
from bitwright.files.containers.gguf.families import notes
from bitwright.files.containers.gguf.names import Piece, targets

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1,
    "num_hidden_layers": 2, "hidden_act": "silu", "tie_word_embeddings": True,
}  # fmt: skip
QUERY = "model.layers.0.self_attn.q_proj.weight"
EXPERT = "model.layers.0.mlp.experts.{}.up_proj.weight"
GEMMA = {**LLAMA, "model_type": "gemma3_text", "hidden_act": "gelu_pytorch_tanh"}
MIXED = {**LLAMA, "model_type": "qwen3_moe"}


def test_queries_go_from_halves_of_heads_to_pairs() -> None:
    (found,) = targets(LLAMA, {QUERY: (8, 8)})
    assert found.pieces[0].order is not None
    assert found.pieces[0].order.tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert found.pieces[0].places(1, 4).tolist() == [2, 1, 3]


def test_fused_queries_keys_and_values_go_one_after_another() -> None:
    config = {**LLAMA, "model_type": "gpt_neox", "hidden_act": "gelu"}
    (found,) = targets(config, {"gpt_neox.layers.1.attention.query_key_value.bias": (12,)})
    assert found.name == "blk.1.attn_qkv.bias"
    assert found.pieces[0].order is not None
    assert found.pieces[0].order.tolist() == [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]


def test_experts_lie_one_after_another_in_whatever_order_they_come() -> None:
    (found,) = targets(MIXED, {EXPERT.format(e): (3, 8) for e in (10, 2, *range(2), *range(3, 10))})
    assert found.name == "blk.0.ffn_up_exps.weight"
    assert found.shape == (11, 3, 8)
    assert [piece.source for piece in found.pieces] == [EXPERT.format(e) for e in range(11)]
    assert found.pieces[10].places(0, 3).tolist() == [30, 31, 32]


def test_stacked_experts_are_told_apart_by_their_rows() -> None:
    up, gate = reversed(targets(MIXED, {"model.layers.0.mlp.experts.gate_up_proj": (2, 4, 8)}))
    assert (gate.name, gate.shape) == ("blk.0.ffn_gate_exps.weight", (2, 2, 8))
    assert gate.pieces[0].places(0, 8).tolist() == [0, 1, -1, -1, 2, 3, -1, -1]
    assert up.pieces[0].places(2, 8).tolist() == [0, 1, -1, -1, 2, 3]


def test_rows_of_a_piece_go_behind_those_before_it() -> None:
    assert Piece("a", 5).places(2, 4).tolist() == [7, 8]


def test_a_tied_output_and_tables_of_rotary_embedding_are_left_out() -> None:
    shapes = {"lm_head.weight": (4, 8), "model.layers.0.self_attn.rotary_emb.inv_freq": (2,)}
    assert targets(LLAMA, shapes) == []
    (found,) = targets({**LLAMA, "tie_word_embeddings": False}, shapes)
    assert found.name == "output.weight"


def test_only_matrices_that_runtimes_take_codes_for_are_quantizable() -> None:
    shapes = {"model.layers.0.mlp.gate.weight": (4, 8), "model.norm.weight": (8,), "model.embed_tokens.weight": (4, 8)}
    assert [target.quantizable for target in targets(MIXED, shapes)] == [False, False, True]


def test_longrope_gives_two_tensors_before_all_others() -> None:
    rope = {"rope_type": "longrope", "long_factor": [2.0, 3.0], "short_factor": [1.0, 1.0]}
    config = {**LLAMA, "model_type": "phi3", "rope_parameters": rope}
    long, short = targets(config, {})
    assert (long.name, short.name) == ("rope_factors_long.weight", "rope_factors_short.weight")
    assert long.values is not None
    assert np.array_equal(long.values, np.float32([2, 3]))


def test_windows_that_runtimes_do_not_keep_to_are_noted() -> None:
    config = {**LLAMA, "model_type": "mistral", "max_position_embeddings": 64, "sliding_window": 32}
    assert notes(config) == ["runtimes of GGUF files look at all tokens, not at the last 32 as this network does"]
    assert notes({**config, "sliding_window": 64}) == notes({**config, "use_sliding_window": False}) == []
    assert notes({**config, "sliding_window": None}) == notes({**config, "model_type": "gemma2"}) == []


@pytest.mark.parametrize(
    ("config", "shapes", "says"),
    [
        ({**LLAMA, "model_type": "mamba2"}, {}, "'mamba2'.*Known: llama, mistral"),
        ({**LLAMA, "hidden_act": "relu"}, {}, "any llama with hidden_act 'silu', not 'relu'"),
        ({**MIXED, "norm_topk_prob": False}, {}, "norm_topk_prob: .* any qwen3moe with norm_topk_prob True, not False"),
        ({**MIXED, "mlp_only_layers": [1]}, {}, r"any qwen3moe with mlp_only_layers None, not \[1\]"),
        ({**LLAMA, "model_type": "qwen3", "partial_rotary_factor": 0.5}, {}, "partial_rotary_factor 1, not 0.5"),
        ({**GEMMA, "query_pre_attn_scalar": 8}, {}, "any gemma3 with query_pre_attn_scalar 4, not 8"),
        ({**GEMMA, "layer_types": ["full_attention"] * 2}, {}, "with layer_types .* not .*full_attention"),
        ({**GEMMA, "attn_logit_softcapping": 50.0}, {}, "with attn_logit_softcapping None, not 50.0"),
        (LLAMA, {"model.layers.0.self_attn.sinks": (2,)}, r"sinks: the architecture llama of GGUF has no such tensor"),
        (LLAMA, {"model.layers.2.input_layernorm.weight": (8,)}, r"layers.2.input_layernorm.weight: .* no such tensor"),
        (LLAMA, {QUERY: (6, 8)}, r"q_proj.weight: its shape \[6, 8\] does not divide into the heads"),
        (LLAMA, {QUERY: ()}, r"q_proj.weight: its shape \[\] does not divide"),
        (MIXED, {EXPERT.format(e): (3, 8) for e in (0, 2)}, "experts.0.* 2 experts .* do not make one tensor"),
        (MIXED, {EXPERT.format(e): (3 + e, 8) for e in range(2)}, r"\[3, 8\], \[4, 8\] do not make one tensor"),
        (LLAMA, {"model.norm.weight": (8,), "norm.weight": (8,)}, "both model.norm.weight and norm.weight are"),
        ({**LLAMA, "rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, {}, "llama3 needs rope_theta"),
        (
            {**LLAMA, "model_type": "phi3", "rope_parameters": {"long_factor": [1.0], "short_factor": [1.0]}},
            {},
            "long_factor and short_factor need 2 numbers each",
        ),
    ],
)  # fmt: skip
def test_what_no_gguf_file_can_hold_is_refused_by_name(config: Any, shapes: Any, says: str) -> None:
    with pytest.raises(ModelError) as error:
        targets(config, shapes)
    assert re.search(says, str(error.value)), str(error.value)
