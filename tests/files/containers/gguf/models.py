"""Tiny models of every family that GGUF files are written for, the same on every machine.

`converter.json` holds what llama.cpp's converter makes of them (commit 0c1e57098bb, October 2026), each by

    python convert_hf_to_gguf.py FOLDER/NAME --outfile NAME.gguf --outtype bf16

with its check of the tokenizer's hash answered by "gpt-2" for those that split bytes: a tiny one has no known hash.
`python -m tests.files.containers.gguf.models make FOLDER` writes the folders, `... record FOLDER` reads the files.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from gguf import GGUFReader
from tokenizers.pre_tokenizers import ByteLevel

EXPECTED = Path(__file__).with_name("converter.json")
BASE = dict(
    hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
    vocab_size=290, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=None,
)  # fmt: skip
LLAMA3 = dict(
    rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=64,
)  # fmt: skip
LONG = dict(
    rope_type="longrope", rope_theta=10000.0, long_factor=[1 + i / 8 for i in range(8)], short_factor=[1.0] * 8,
)  # fmt: skip
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=32)
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", dict(attention_bias=True, tie_word_embeddings=False)),
    "llama3": ("Llama", dict(head_dim=16, tie_word_embeddings=True, rope_parameters=LLAMA3)),
    "mistral": ("Mistral", dict(sliding_window=32)),
    "mixtral": ("Mixtral", dict(num_local_experts=4, num_experts_per_tok=2)),
    "qwen2": ("Qwen2", dict(rope_parameters=YARN)),
    "qwen3": ("Qwen3", dict(head_dim=16, tie_word_embeddings=True)),
    "qwen3moe": (
        "Qwen3Moe",
        dict(head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, norm_topk_prob=True),
    ),
    "gemma2": ("Gemma2", dict(head_dim=16, query_pre_attn_scalar=16)),
    "gemma3": ("Gemma3Text", dict(head_dim=16, sliding_window=32, query_pre_attn_scalar=16)),
    "phi3": ("Phi3", dict(original_max_position_embeddings=128)),
    "phi3long": ("Phi3", dict(max_position_embeddings=256, original_max_position_embeddings=128, rope_parameters=LONG)),
    "gptneox": ("GPTNeoX", dict(rotary_pct=0.25)),
}
"""Name -> class of its config, and what that differs in from BASE."""
BYTES = ("qwen3moe", "gptneox")
"""Those that the converter knows no vocabulary of pieces for."""


def make(name: str, folder: Path) -> Path:
    """Write one model; its weights are multiples of 1/64 that repeat in no row."""
    kind, own = CONFIGS[name]
    given = {**BASE, **own}
    if name == "gptneox":
        del given["num_key_value_heads"]
    config = getattr(transformers, f"{kind}Config")(**given)
    model = transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    with torch.no_grad():
        for number, tensor in enumerate(model.parameters()):
            values = (np.arange(tensor.numel()) * 7919 + 131 * number) % 251 - 125
            tensor.copy_(torch.from_numpy(values / 64).reshape(tensor.shape))
    model.save_pretrained(folder)
    config_file = folder / "config.json"
    if name == "gptneox":  # the converter looks for it where transformers had it before its version 5
        config_file.write_text(json.dumps({**json.loads(config_file.read_text()), "rotary_pct": 0.25}))
    if name in BYTES:
        (folder / "tokenizer.json").write_text(json.dumps(bytes_tokenizer()))
    else:
        (folder / "tokenizer.model").write_bytes(pieces_model(prefix="gemma" not in name))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "add_bos_token": True, "add_eos_token": False, "chat_template": "{{ messages }}",
    }  # fmt: skip
    if name not in BYTES:
        added = {"1": {"content": "<s>", "special": True}, "3": {"content": "<user>", "special": False}}
        settings |= {"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": added}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def bytes_tokenizer(size: int = 290) -> dict[str, Any]:
    """A tokenizer of bytes, with some merges that make it `size` tokens."""
    letters = sorted(ByteLevel.alphabet())
    special = ["<unk>", "<s>", "</s>"]
    pairs = [(a, b) for a in "Ġetaoin" for b in "thesr"][: size - len(letters) - len(special)]
    texts = [*special, *letters, *("".join(pair) for pair in pairs)]
    added = [
        {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True} for i, text in enumerate(special)
    ]  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
             "vocab": {text: i for i, text in enumerate(texts)}, "merges": [list(pair) for pair in pairs]}  # fmt: skip
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level, "model": model}  # fmt: skip


def pieces_model(prefix: bool = True, kind: int = 2) -> bytes:
    """A `tokenizer.model` of 280 pieces, in the wire format of Protocol Buffers."""
    special = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("<user>", 0.0, 4)]
    merged = [("▁t", 0.0, 1), ("he", -1.0, 1), ("▁the", -2.0, 1)]
    pieces = [*special, *((f"<0x{i:02X}>", 0.0, 6) for i in range(256)), *merged]
    pieces += [(letter, -3.0 - i, 1) for i, letter in enumerate("▁etaoinshrdlcumwf")]
    whole = b"".join(
        _sized(1, _sized(1, text.encode()) + b"\x15" + np.float32(score).tobytes() + bytes([0x18, number]))
        for text, score, number in pieces
    )
    return whole + _sized(2, bytes([0x18, kind, 0x98, 2, 1])) + _sized(3, bytes([0x18, prefix]))


def _sized(number: int, data: bytes) -> bytes:
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


def record(path: Path) -> dict[str, Any]:
    """What a file holds: its metadata, and the type, shape and checksum of each tensor."""
    reader = GGUFReader(path)
    facts = {}
    for key, found in reader.fields.items():
        if not key.startswith("GGUF."):
            kinds = " ".join(kind.name for kind in found.types)
            facts[key] = f"{kinds} {json.dumps(plain(found.contents()), ensure_ascii=False)}"
    tensors = {}
    for tensor in reader.tensors:
        shape = "x".join(str(size) for size in reversed(tensor.shape.tolist()))
        tensors[tensor.name] = f"{tensor.tensor_type.name} {shape} {zlib.crc32(np.ascontiguousarray(tensor.data)):08x}"
    return {"facts": facts, "tensors": tensors}


def summary(path: Path) -> dict[str, Any]:
    """The same of a whole model: how many facts and tensors, and one checksum of each."""
    found = record(path)
    found["facts"].pop("tokenizer.ggml.add_bos_token", None)  # the converter leaves it to runtimes to guess
    return {
        what: f"{len(entries)} of {zlib.crc32(json.dumps(entries, sort_keys=True).encode()):08x}"
        for what, entries in found.items()
    }


def plain(value: Any) -> Any:
    """A value as JSON has it, a long list by its length and checksum."""
    if isinstance(value, list) and len(value) > 8:
        return f"{len(value)} of {zlib.crc32(json.dumps(value, default=float).encode()):08x}"
    return value


if __name__ == "__main__":
    what, into = sys.argv[1], Path(sys.argv[2])
    if what == "make":
        for model_name in CONFIGS:
            make(model_name, into / model_name)
    else:
        recorded = {model_name: record(into / f"{model_name}.gguf") for model_name in CONFIGS}
        EXPECTED.write_text(json.dumps(recorded, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
