"""Metadata from configs and model cards. What is right for whole models is in test_converter.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf import LlamaFileType

from bitwright.errors import ModelError
from bitwright.files.containers.gguf.header import facts
from bitwright.files.containers.gguf.names import Target

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1,
    "num_hidden_layers": 2, "hidden_act": "silu", "max_position_embeddings": 64,
}  # fmt: skip
TENSORS = [Target("token_embd.weight", (1000, 8)), Target("blk.0.ffn_up_exps.weight", (4, 500, 8))]
CARD = """---
license: apache-2.0
language: [en, no]
tags: [tiny]
pipeline_tag: text-generation
base_model: some-house/Big-Model-7B-v1.2
---
A model.
"""


def values(folder: Path, config: Any = LLAMA, file_type: LlamaFileType = LlamaFileType.ALL_F32) -> dict[str, Any]:
    return {key: fact.value for key, fact in facts(folder, config, TENSORS, file_type).items()}


def test_the_folder_and_its_card_say_what_the_model_is(tmp_path: Path) -> None:
    folder = tmp_path / "small-model-chat-v2"
    folder.mkdir()
    (folder / "README.md").write_text(CARD)
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.6, "repetition_penalty": 1.1}))
    found = values(folder, file_type=LlamaFileType.MOSTLY_Q4_K_M)
    assert found["general.name"] == "Small Model Chat v2"
    assert found["general.finetune"] == "chat"
    assert found["general.version"] == "v2"
    assert found["general.license"] == "apache-2.0"
    assert found["general.tags"] == ["tiny", "text-generation"]
    assert found["general.languages"] == ["en", "no"]
    assert found["general.base_model.0.name"] == "Big Model 7B v1.2"
    assert found["general.base_model.0.repo_url"] == "https://huggingface.co/some-house/Big-Model-7B-v1.2"
    assert found["general.sampling.temp"] == 0.6
    assert found["general.sampling.penalty_repeat"] == 1.1
    assert found["general.file_type"] == 15
    assert found["general.size_label"] == "4x12K"


def test_a_card_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(ModelError, match=r"README.md: the head of the model card is not YAML"):
        values(tmp_path)


def test_settings_that_are_no_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text("[1]")
    with pytest.raises(ModelError, match=r"generation_config.json is not what these files hold"):
        values(tmp_path)


def test_positions_that_are_scaled_by_an_unknown_rule_are_refused(tmp_path: Path) -> None:
    config = {**LLAMA, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}
    with pytest.raises(ModelError, match="no llama of GGUF scales its rotary embedding by the rule 'dynamic'"):
        values(tmp_path, config)
    rope = {"rope_type": "llama3", "factor": 2.0}
    with pytest.raises(ModelError, match="no qwen2 of GGUF scales its rotary embedding by the rule 'llama3'"):
        values(tmp_path, {**LLAMA, "model_type": "qwen2", "rope_parameters": rope})
    rope = {"rope_type": "linear", "factor": 2.0}
    with pytest.raises(ModelError, match="no gptneox of GGUF scales its rotary embedding by the rule 'linear'"):
        values(tmp_path, {**LLAMA, "model_type": "gpt_neox", "hidden_act": "gelu", "rope_parameters": rope})


def test_a_base_that_runtimes_would_not_guess_is_written(tmp_path: Path) -> None:
    for base, expected in ((10000.0, None), (5000.0, 5000.0)):
        config = {**LLAMA, "model_type": "gpt_neox", "hidden_act": "gelu", "rope_parameters": {"rope_theta": base}}
        assert values(tmp_path, config).get("gptneox.rope.freq_base") == expected


@pytest.mark.parametrize(
    ("rope", "expected"),
    [
        ({"rope_type": "linear", "factor": 2.0}, {"type": "linear", "factor": 2.0}),
        (
            {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32, "beta_fast": 16.0},
            {"type": "yarn", "factor": 2.0, "original_context_length": 32, "yarn_beta_fast": 16.0},
        ),
        ({"rope_type": "llama3", "factor": 2.0, "original_max_position_embeddings": 32}, {}),
    ],
)
def test_scaled_positions_say_how(rope: Any, expected: Any, tmp_path: Path) -> None:
    found = values(tmp_path, {**LLAMA, "rope_parameters": rope})
    head = "llama.rope.scaling."
    assert {key.removeprefix(head): value for key, value in found.items() if key.startswith(head)} == expected
