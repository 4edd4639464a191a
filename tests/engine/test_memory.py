"""A model far larger than the memory ceiling is quantized below it, by the command line, in a process of its own."""

from __future__ import annotations

import inspect
import json
import os
import pydoc
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

from bitwright.engine import machine
from tests import tiny

MB = 10**6
CEILING = 900 * MB
WIDTH, INNER, HEADS, LAYERS, SHARD = 768, 2048, 12, 40, 8
SIZE = 2 * (LAYERS * (4 * WIDTH**2 + 3 * WIDTH * INNER + 2 * WIDTH) + 2 * 1024 * WIDTH + WIDTH)
"""Bytes of the weights: two and a half times what the ceiling leaves beside Python, torch and transformers."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random bfloat16 weights, written shard by shard."""
    folder = tmp_path_factory.mktemp("memory") / "model"
    folder.mkdir()
    transformers.LlamaConfig(
        hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=HEADS, vocab_size=1024, max_position_embeddings=256, tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=0, dtype="bfloat16", architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)  # fmt: skip
    seeded = torch.Generator().manual_seed(0)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return (torch.randn(rows, columns, generator=seeded) / columns**0.5).bfloat16()

    places = {}
    for first in range(0, LAYERS, SHARD):
        tensors = {}
        if first == 0:
            tensors["model.embed_tokens.weight"] = matrix(1024, WIDTH)
            tensors["lm_head.weight"] = matrix(1024, WIDTH)
            tensors["model.norm.weight"] = torch.ones(WIDTH).bfloat16()
        for layer in range(first, first + SHARD):
            prefix = f"model.layers.{layer}."
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                tensors[f"{prefix}self_attn.{name}.weight"] = matrix(WIDTH, WIDTH)
            tensors[f"{prefix}mlp.gate_proj.weight"] = matrix(INNER, WIDTH)
            tensors[f"{prefix}mlp.up_proj.weight"] = matrix(INNER, WIDTH)
            tensors[f"{prefix}mlp.down_proj.weight"] = matrix(WIDTH, INNER)
            for name in ("input_layernorm", "post_attention_layernorm"):
                tensors[f"{prefix}{name}.weight"] = torch.ones(WIDTH).bfloat16()
        file = f"model-{first // SHARD + 1:05d}-of-{LAYERS // SHARD:05d}.safetensors"
        save_file(tensors, folder / file, {"format": "pt"})
        places |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny.DEMO / name, folder / name)
    (folder.parent / "some.txt").write_text(inspect.getsource(pydoc), "utf-8")
    return folder


def test_the_model_is_larger_than_the_ceiling_leaves_room_for(model: Path) -> None:
    stored = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    assert stored == pytest.approx(SIZE, rel=0.001)
    assert stored > 2.4 * (CEILING - machine.BASE)
    assert 2 * stored > CEILING  # nor does it fit in float32, even into all of it


RECIPE = """
[layer]
method = "rtn"
[[rules]]
match = "*.layers.30.*"
method = "descent"
"""
"""The default method on one late block, so that the test does not take minutes; calibration visits them all."""


@pytest.mark.parametrize(
    "options",
    [
        ["--method", "rtn"],
        ["--recipe", "{recipe}", "--calib", "{text}", "--windows", "4", "--length", "32", "--heldout-windows", "2"],
    ],
    ids=["rtn", "calibrated"],
)
def test_the_ceiling_holds(options: list[str], model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "recipe.toml").write_text(RECIPE)
    options = [option.format(text=model.parent / "some.txt", recipe=tmp_path / "recipe.toml") for option in options]
    command = [sys.executable, "-m", "bitwright.cli", "quantize", str(model), "-o", str(out), "--json"]
    command += ["--max-ram", f"{CEILING // MB}MB", "--threads", "1", *options]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (CEILING, CEILING))

    with (tmp_path / "log").open("w") as log:
        child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, preexec_fn=limit)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    text = (tmp_path / "log").read_text()
    assert child.returncode == 0, text[-2000:]
    peak = usage.ru_maxrss * 1024
    print(f"{options}: peak {peak / MB:.0f} of {CEILING / MB:.0f} MB, {usage.ru_utime + usage.ru_stime:.0f} s CPU")
    assert peak < CEILING

    events: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    certificate = events[-1]["certificate"]
    assert len(certificate["rows"]) == 7 * LAYERS
    assert certificate["loaded_by_transformers"]["checked"] is False  # the whole model would not fit
    assert re.search("does not fit", certificate["loaded_by_transformers"]["why"])
    assert certificate["peak_memory_bytes"] <= peak
    refined = [row for row in certificate["rows"] if row["method"] == "descent"]
    assert len(refined) == (0 if "rtn" in options else 7)
    assert all(row["tokens"] == 4 * 32 for row in refined)
    planned = next(event for event in events if event["event"] == "plan")
    assert planned["peak_memory_bytes"] <= CEILING
