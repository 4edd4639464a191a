"""The types that llama.cpp's mixes give, as llama.cpp gave them.

`mixes.json` holds what `llama_tensor_get_type` of llama.cpp (src/llama-quant.cpp, commit 0c1e57098bb) answers for the
models below, called for each tensor in the order of its weights_map: per mix how many tensors got which type, and a
checksum of all in order; with an imatrix where "+" says so. Each mix of 1100 more models was compared once.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType
from transformers import AutoConfig

from bitwright.errors import ModelError, RecipeError
from bitwright.files.containers.gguf import header, names, tokenizer
from bitwright.files.containers.gguf.layout import Layout, Spec
from bitwright.files.containers.gguf.mixes import MIXES, Build, mix_of, types
from bitwright.files.safetensors import Checkpoint
from tests.networks import shared

EXPECTED = json.loads(Path(__file__).with_name("mixes.json").read_text())
MODELS = {
    "docs18m": (Build("llama", 5, 8, 4), 512, 1280, True),
    "smollm2": (Build("llama", 30, 9, 3), 576, 1536, True),
    "gemma3": (Build("gemma3", 18, 4, 1), 640, 2048, True),
    "untied": (Build("qwen2", 24, 14, 2), 896, 4864, False),
    "mixtral": (Build("llama", 32, 32, 8, 8), 4096, 14336, False),
    "odd": (Build("qwen3moe", 4, 4, 4, 16), 320, 96, False),
    "seventy": (Build("llama", 80, 64, 8), 8192, 28672, False),
}
"""Name -> build, columns of the embedding and of the feed-forward layer, whether the output is the embedding."""
SIZES = {
    "q8_0": 19374560, "q4_0": 11477472, "q4_1": 12337632, "q5_0": 13197792, "q5_1": 14057952, "q2_k": 8784352,
    "q3_k_m": 10378720, "q4_k_m": 11882976, "q5_k_m": 13406688, "q6_k": 15025632, "iq4_xs": 11047392, "tq1_0": 6639072,
}  # fmt: skip
"""Mix -> bytes of what llama.cpp's `llama_model_quantize` made of docs18m's float file, as `floats` writes it."""


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    build, columns, hidden, tied = MODELS[name]
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (1000, columns), "output_norm.weight": (columns,)}
    if not tied:
        shapes["output.weight"] = (1000, columns)
    experts, suffix = ((build.experts,), "_exps") if build.experts else ((), "")
    for block in range(build.blocks):
        head = f"blk.{block}."
        small = columns * build.kv_heads // build.heads
        shapes |= {f"{head}attn_{part}.weight": (rows, columns) for part, rows in
                   (("q", columns), ("k", small), ("v", small), ("output", columns))}  # fmt: skip
        shapes |= {f"{head}ffn_{part}{suffix}.weight": (*experts, hidden, columns) for part in ("gate", "up")}
        shapes[f"{head}ffn_down{suffix}.weight"] = (*experts, columns, hidden)
        shapes[f"{head}attn_norm.weight"] = (columns,)
        if build.experts:
            shapes[f"{head}ffn_gate_inp.weight"] = (build.experts, columns)
    return shapes


def summary(found: Iterable[GGMLQuantizationType]) -> str:
    """How many tensors have which type, and a checksum of all in order."""
    names = [kind.name for kind in found]
    counts = ", ".join(f"{count} {name}" for name, count in sorted(Counter(names).items()))
    return f"{counts}; {zlib.crc32(' '.join(names).encode()):08x}"


@pytest.mark.parametrize("model", MODELS)
def test_each_mix_gives_the_types_that_llama_cpp_gives(model: str) -> None:
    shapes, build = shapes_of(model), MODELS[model][0]
    found = {}
    for name, mix in MIXES.items():
        for imatrix in (True,) if mix.needs_imatrix else (False, True):
            found[f"{name}{'+' * imatrix}"] = summary(types(name, shapes, build, imatrix).values())
    assert found == EXPECTED[model]


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_a_file_has_the_size_that_llama_cpp_gives_it(name: str, size: int) -> None:
    folder = shared("models", "docs18m")
    if folder is None:
        pytest.skip("needs ../shared/models/docs18m")
    config = AutoConfig.from_pretrained(folder).to_dict()
    tensors = {entry.name: entry.shape for entry in Checkpoint(folder).tensors.values()}
    found = names.targets(config, tensors)
    kinds = types(name, {target.name: target.shape for target in found}, Build.of(config))
    facts = header.facts(folder, config, found, mix_of(name).file_type) | tokenizer.facts(folder, config)
    specs = [Spec(target.name, kinds[target.name], target.shape) for target in found]
    assert Layout("docs18m.gguf", facts, specs).total_bytes == size


def test_types_come_in_the_order_of_the_tensors() -> None:
    shapes = dict(reversed(shapes_of("docs18m").items()))
    assert [*types("q4_k_m", shapes, MODELS["docs18m"][0])] == [*shapes]


def test_a_build_is_read_from_a_config() -> None:
    config = {"model_type": "qwen3_moe", "num_attention_heads": 32, "num_hidden_layers": 48, "num_experts": 128}
    assert Build.of(config) == Build("qwen3moe", 48, 32, 32, 128)
    with pytest.raises(ModelError, match="'mamba'"):
        Build.of(config | {"model_type": "mamba"})


def test_an_unknown_mix_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"no mix is called 'Q4_M'. Did you mean q4_k_m"):
        mix_of("Q4_M")


def test_a_mix_that_needs_an_imatrix_says_so() -> None:
    with pytest.raises(RecipeError, match="q2_k_s is made only with an imatrix"):
        types("q2_k_s", shapes_of("docs18m"), MODELS["docs18m"][0])


def test_a_matrix_of_one_row_counts_as_a_vector() -> None:
    assert types("q4_0", {"a.weight": (1, 64)}, MODELS["docs18m"][0]) == {"a.weight": GGMLQuantizationType.F32}
