"""Every method quantizes a model three times larger than the memory that the kernel lets the process have."""

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
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bitwright.files.safetensors import Layout, Spec
from bitwright.methods import registry
from bitwright.models import kinds
from tests import tiny

MB = 10**6
CEILING = 740 * MB
"""Of this, Python, torch, transformers and compressed-tensors take about 420 MB before there is any model."""
WIDTH, INNER, HEADS, LAYERS, VOCABULARY = 768, 1536, 12, 192, 1024
WINDOWS, LENGTH = 4, 16
BLOCK = {
    **{f"self_attn.{name}_proj": (WIDTH, WIDTH) for name in "qkvo"},
    "mlp.gate_proj": (INNER, WIDTH),
    "mlp.up_proj": (INNER, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
    "input_layernorm": (WIDTH,),
    "post_attention_layernorm": (WIDTH,),
}
"""Many small blocks: passing through them is cheap, holding them all is not."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Llama of random bfloat16 weights, 1.9 GB in four files; removed after this module's tests."""
    folder = tmp_path_factory.mktemp("memory") / "model"
    folder.mkdir()
    transformers.LlamaConfig(
        hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=HEADS, vocab_size=VOCABULARY, max_position_embeddings=256, tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=0, dtype="bfloat16", architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (VOCABULARY, WIDTH), "lm_head": (VOCABULARY, WIDTH)}
    shapes["model.norm"] = (WIDTH,)
    shapes |= {f"model.layers.{i}.{name}": shape for i in range(LAYERS) for name, shape in BLOCK.items()}
    layout = Layout([Spec(f"{name}.weight", torch.bfloat16, s) for name, s in shapes.items()], max_shard=500 * MB)
    layout.create(folder)
    # One block of noise serves all matrices, each from another place in it.
    shifts = 4096
    noise = torch.randn(WIDTH * INNER + shifts, generator=torch.Generator().manual_seed(0)) / WIDTH**0.5
    raw, ones = (memoryview(x.bfloat16().view(torch.uint8).numpy()) for x in (noise, torch.ones(WIDTH)))
    for number, (file, offset, spec) in enumerate(layout.place.values()):
        first = 2 * (number % shifts)
        data = ones if len(spec.shape) == 1 else raw[first : first + spec.size]
        with (folder / file).open("r+b", buffering=0) as stored:
            assert os.pwrite(stored.fileno(), data, offset) == spec.size
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny.DEMO / name, folder / name)
    (folder / "some.txt").write_text(inspect.getsource(pydoc), "utf-8")
    yield folder
    shutil.rmtree(folder)


def limited(command: list[str], log: Path) -> tuple[int, resource.struct_rusage]:
    """Run a command to which the kernel gives no more than the ceiling; its exit code and what it used."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (CEILING, CEILING))

    # One thread: the stacks and buffers of more would count against the limit in full, however little they are used.
    single = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, preexec_fn=limit, env=single)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, usage


def stored_bytes(folder: Path) -> int:
    """Bytes of a folder's weight files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


LOAD = """
import sys, pathlib
from bitwright.files.folder import open_checkpoint
checkpoint = open_checkpoint(pathlib.Path(sys.argv[1]))
kept = {}
try:
    for name in checkpoint.tensors:
        kept[name] = checkpoint.read(name)
except (MemoryError, RuntimeError) as error:
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:")).split()[1]
    print("refused after", sum(t.nbytes for t in kept.values()), "at", peak, "KiB:", error)
    sys.exit(7)
"""


@pytest.mark.slow
def test_the_limit_refuses_a_process_that_holds_the_model(model: Path, tmp_path: Path) -> None:
    assert stored_bytes(model) >= 3 * CEILING
    code, _ = limited([sys.executable, "-c", LOAD, str(model)], tmp_path / "log")
    text = (tmp_path / "log").read_text()
    assert code == 7, text[-2000:]
    found = re.search(r"refused after (\d+) at (\d+) KiB: .*(allocate|memory)", text)
    assert found is not None, text
    assert int(found[1]) < CEILING
    # Libraries, mapped from files, are not limited. (ru_maxrss would begin at the size of this process.)
    assert int(found[2]) * 1024 < 1.2 * CEILING


COMPRESSED = """
[layer]
format = "float"
[[rules]]
match = "*.layers.*0.*"
format = "int4"
method = "rtn"
[[rules]]
match = "*.layers.5.*"
format = "int4"
method = "mse"
[[rules]]
match = "*.layers.90.*"
method = "gptq"
[[rules]]
match = "*.layers.190.*"
method = "descent"
"""
"""Every tenth block, the slow methods on one each, so that the test does not take minutes; calibration sees all."""
CODEBOOKS = """
output = "float"
[layer]
format = "float"
[[rules]]
match = "*.layers.5.*"
format = "codebook3"
method = "lloyd"
[[rules]]
match = "*.layers.90.self_attn.q_proj"
format = "codebook8"
method = "lloyd"
[[rules]]
match = "*.layers.190.mlp.*"
format = "codebook4"
group = "tensor"
method = "lloyd"
"""
"""Tables for each group, larger than the groups, and for each matrix."""


PATHS = """
effort = "fast"
output = "trellis"
[layer]
format = "float"
[[rules]]
match = "*.layers.5.self_attn.q_proj"
format = "trellis2"
method = "trellis"
"""
"""Numba compiles what finds them, and they are read back in runs of 256 rows."""


CASES: list[tuple[str, bool, dict[str, int]]] = [
    (COMPRESSED, True, {"rtn": 7 * 18, "mse": 7, "gptq": 7, "descent": 7}),
    (CODEBOOKS, False, {"lloyd": 7 + 1 + 3}),
    (PATHS, True, {"trellis": 1}),
]


def test_every_method_has_its_case() -> None:
    kind = kinds.get("language")
    able = {m.name for m in registry.all() if m.scope in kind.scopes and m.needs in kind.shows}
    assert set(registry.names()) == able
    able -= {"adaround", "blockwise", "lsq"}  # they learn for minutes on a model of this size
    assert {method for *_, expected in CASES for method in expected} == able


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("recipe", "text", "expected"), CASES, ids=["rtn-mse-gptq-descent", "lloyd", "trellis"])
def test_the_ceiling_holds(recipe: str, text: bool, expected: dict[str, int], model: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    (tmp_path / "recipe.toml").write_text(recipe)
    command = [sys.executable, "-m", "bitwright.cli", "quantize", str(model), "-o", str(out), "--json"]
    command += ["--max-ram", f"{CEILING // MB}MB", "--threads", "1", "--recipe", str(tmp_path / "recipe.toml")]
    if text:
        command += ["--calib", str(model / "some.txt"), "--windows", str(WINDOWS), "--length", str(LENGTH)]
        command += ["--heldout-windows", "2"]
    try:
        code, usage = limited(command, log)
    finally:
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(tmp_path / "out.partial", ignore_errors=True)
    assert code == 0, log.read_text()[-2000:]
    events: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    certificate = events[-1]["certificate"]
    # The high-water mark of the process itself: ru_maxrss would begin at the size of this one, which forked it.
    peak = certificate["peak_memory_bytes"]
    print(f"{dict(expected)}: peak {peak / MB:.0f} of {CEILING / MB:.0f} MB", end=", ")
    print(f"{usage.ru_utime + usage.ru_stime:.0f} s CPU")
    assert peak < CEILING <= stored_bytes(model) / 3

    planned = next(event for event in events if event["event"] == "plan")
    assert peak <= planned["peak_memory_bytes"] <= CEILING
    rows = certificate["rows"]
    assert Counter(row["method"] for row in rows) == expected
    assert {row["name"] for row in rows} == {matrix["name"] for matrix in planned["quantized"]}
    assert all(row["tokens"] == (WINDOWS * LENGTH if text else None) for row in rows)
    assert (certificate["verdict"] is not None) == text
    assert certificate["loaded_by_transformers"]["checked"] is False  # the whole model would not fit
    assert re.search("does not fit", certificate["loaded_by_transformers"]["why"])
