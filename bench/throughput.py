"""How fast round-to-nearest streams a checkpoint larger than its memory, against copying the same file.

    .venv/bin/python bench/throughput.py [--gigabytes 3] [--folder DIR] [--repeat 2]

Makes a random Llama-style checkpoint, then in turn copies its files and quantizes it with `--method rtn`. Prints a
Markdown table: seconds, source gigabytes per second, ratio to copying, CPU seconds and peak memory. Reading the
phases from the command's own events separates writing from certification (which reads everything twice more).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoConfig

from bitwright.files.safetensors import Layout, Spec

ROOT = Path(__file__).resolve().parent.parent
HIDDEN, INNER, HEADS, VOCABULARY = 2048, 5632, 16, 1024
CEILING = "1100MB"
"""What the kernel lets the quantizing process have, whatever the size of the checkpoint."""


def make(folder: Path, gigabytes: float) -> int:
    """Write a random bf16 Llama checkpoint of about `gigabytes` in shards of 1 GB; returns its bytes."""
    layer = {
        **{f"self_attn.{n}_proj": (HIDDEN, HIDDEN) for n in "qkvo"},
        **{f"mlp.{n}_proj": (INNER, HIDDEN) for n in ("gate", "up")},
        "mlp.down_proj": (HIDDEN, INNER),
        "input_layernorm": (HIDDEN,),
        "post_attention_layernorm": (HIDDEN,),
    }
    size = 2 * sum(torch.Size(shape).numel() for shape in layer.values())
    layers = max(1, round(gigabytes * 1e9 / size))
    config = AutoConfig.for_model(
        "llama", hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=layers, num_attention_heads=HEADS,
        num_key_value_heads=HEADS, vocab_size=VOCABULARY, tie_word_embeddings=True, dtype="bfloat16",
    )  # fmt: skip
    config.architectures = ["LlamaForCausalLM"]
    specs = [Spec("model.embed_tokens.weight", torch.bfloat16, (VOCABULARY, HIDDEN))]
    for i in range(layers):
        specs += [Spec(f"model.layers.{i}.{name}.weight", torch.bfloat16, shape) for name, shape in layer.items()]
    specs.append(Spec("model.norm.weight", torch.bfloat16, (HIDDEN,)))
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    layout = Layout(specs, max_shard=10**9)
    layout.create(folder)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(INNER * HIDDEN, generator=generator).mul_(0.02).to(torch.bfloat16)
    for spec in specs:
        layout.write(folder, spec.name, noise[: torch.Size(spec.shape).numel()].reshape(spec.shape))
    return layout.total_bytes


def timed(command: list[str]) -> tuple[dict[str, float], list[tuple[float, dict]]]:
    """Run a command; returns wall and CPU seconds and peak memory in MB, and its JSON lines with their times."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    events = []
    for line in process.stdout:
        events.append((time.perf_counter() - start, json.loads(line)))
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed")
    wall = time.perf_counter() - start
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss / 1000}, events


def main() -> None:
    """Run the comparison and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--repeat", type=int, default=2)
    options = parser.parse_args()
    base = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        source = base / "model"
        size = make(source, options.gigabytes)
        print(f"\n{size / 1e9:.2f} GB of bf16 weights\n")
        print("| run | what | seconds | GB/s | against copying | CPU s | peak MB |\n|---|---|---|---|---|---|---|")
        for run in range(1, options.repeat + 1):
            copy, _ = timed(["cp", "-r", str(source), str(base / "copy")])
            shutil.rmtree(base / "copy")
            command = [str(ROOT / ".venv/bin/bitwright"), "quantize", str(source), "--method", "rtn", "--json"]
            ours, events = timed([*command, "--max-ram", CEILING, "-o", str(base / "out")])
            shutil.rmtree(base / "out")
            phases = [(t, e["phase"]) for t, e in events if e["event"] == "started"]
            begin = next(t for t, p in phases if p == "quantize")
            written = next(t for t, p in phases if p == "certify")
            for what, seconds, cost in (
                ("cp", copy["wall"], copy),
                ("quantize: read, round, measure, write", written - begin, None),
                ("the whole command, certified", ours["wall"], ours),
            ):
                rest = f"{cost['cpu']:.1f} | {cost['peak']:.0f}" if cost else " | "
                ratio = copy["wall"] / seconds
                print(
                    f"| {run} | {what} | {seconds:.1f} | {size / seconds / 1e9:.2f} | {ratio:.2f} | {rest} |",
                    flush=True,
                )
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
