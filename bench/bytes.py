# ruff: noqa: E501
"""SHA-256 of what every method and container writes, to hold one state of the code against another.

    python bench/bytes.py record before.json            # on one commit
    python bench/bytes.py compare before.json           # on another, on the same machine

Sums of matrix products depend on the processor and its threads, so figures of two machines are not comparable. Models:
the bundled ones, a tiny random Llama and a tiny mixture of experts, and ../shared's ResNet-20 where it is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import torch

import bitwright
from bitwright.cli import app
from bitwright.libraries import load

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
CONTENT = Path(bitwright.__file__).parent / "content"
TEXT = ["--calib", "stdlib", "--windows", "16", "--length", "64", "--heldout-windows", "2"]
ENDINGS = (".safetensors", ".onnx", ".data", "config.json", ".index.json")


def cases(folder: Path) -> Iterator[tuple[str, Path, list[str], str]]:
    """(name, model, options, recipe)."""
    from tests import tiny

    demo = CONTENT / "demo-model"
    for method in ("rtn", "mse", "gptq", "descent"):
        yield f"demo int4 {method}", demo, ["--bits", "4", "--method", method, *TEXT], ""
        yield f"demo int8 channel asym {method}", demo, ["--bits", "8", "--group", "channel", "--asymmetric",
                                                         "--method", method, *TEXT], ""  # fmt: skip
    yield "demo int4 mse without text", demo, ["--method", "mse"], ""
    yield "demo int2 g32 asym", demo, ["--bits", "2", "--group", "32", "--asymmetric", *TEXT], ""
    yield "demo fp8", demo, ["--format", "fp8", *TEXT], ""
    yield "demo fp8 activations", demo, ["--format", "fp8", "--activations", "fp8", *TEXT], ""
    yield "demo w8a8", demo, ["--bits", "8", "--group", "channel", "--activations", "int8", *TEXT], ""
    for form in ("int3", "midrise2", "nf4", "fp4", "mxfp4", "nvfp4", "ternary", "codebook3", "fp8_e5m2"):
        yield f"demo simulate {form}", demo, ["--format", form, "--simulate", *TEXT], ""
    yield "demo simulate int4 tensor", demo, ["--bits", "4", "--group", "tensor", "--method", "rtn", "--simulate"], ""
    yield (
        "demo mixed",
        demo,
        TEXT,
        (
            '[[rules]]\nmatch = "*down_proj*"\nformat = "int8"\ngroup = "channel"\nmethod = "rtn"\n'
            '[[rules]]\nmatch = "*o_proj*"\nformat = "float"\n[layer.options]\ndamping = 0.05\norder = "natural"\nsweeps = 2\n'
        ),
    )
    wide = {"hidden_size": 128, "head_dim": 32, "intermediate_size": 256}
    llama = tiny.make("llama", folder / "llama", **wide)
    small = tiny.make("llama", folder / "odd")
    moe = tiny.make("qwen3_moe", folder / "moe", **{**wide, "moe_intermediate_size": 128})
    gpt2 = tiny.make("gpt2", folder / "gpt2")
    for method in ("rtn", "mse", "gptq", "descent"):
        yield f"llama int4 {method}", llama, ["--bits", "4", "--method", method, *TEXT], ""
        yield (
            f"moe int4 {method}",
            moe,
            ["--bits", "4", "--method", method, *TEXT],
            "[calibration]\nmin_expert_tokens = 8\n",
        )
    yield "odd channel", small, ["--bits", "4", "--indivisible", "channel", *TEXT], ""
    yield "llama head", llama, TEXT, '[[rules]]\nmatch = "lm_head"\nformat = "int8"\n'
    tied = tiny.make("qwen2", folder / "tied", **wide)
    yield "tied head", tied, TEXT, 'untie = true\n[[rules]]\nmatch = "lm_head"\nformat = "int8"\ngroup = "channel"\n'
    yield "gpt2 simulate", gpt2, ["--bits", "4", "--group", "32", "--simulate", *TEXT], ""
    yield from networks(folder)


def networks(folder: Path) -> Iterator[tuple[str, Path, list[str], str]]:
    """The same for ONNX networks."""
    from bitwright.models.demos import digits

    data = digits.write(folder / "digits.npz", "calibration")
    model = CONTENT / "digits" / "model.onnx"
    table = f'[data]\nsource = "{data}"\nsamples = 64\nheldout_samples = 64\n'
    for method in ("rtn", "mse", "gptq", "descent", "adaround"):
        yield f"digits int8 {method}", model, ["--method", method], table
        yield f"digits int4 {method}", model, ["--bits", "4", "--method", method], table
    lsq = "epochs = 2\npenalty = 0.5\n"
    yield (
        "digits int4 lsq",
        model,
        ["--bits", "4", "--method", "lsq"],
        table + (f"[network.training]\n{lsq}" if old() else f"[layer]\nmethod = 'lsq'\n[layer.options]\n{lsq}"),
    )
    for target in ("arm", "gpu"):
        yield f"digits {target}", model, [], f'{table}[network]\ntarget = "{target}"\n'
    yield "digits packed int4", model, ["--bits", "4"], f'{table}[network]\nstorage = "int4"\nentrance = "int8"\n'
    yield "digits rewrites", model, [], f'{table}[network]\nabsorb = true\nbias = "analytic"\nobserver = "entropy"\n'
    yield (
        "digits options",
        model,
        [],
        (
            f'{table}[layer.options]\ndamping = 0.05\n[[rules]]\nmatch = "*body.0*"\nformat = "float"\n'
            '[[rules]]\nmatch = "*body.3*"\nformat = "int4"\nmethod = "mse"\n'
        ),
    )
    yield "digits fallback", model, ["--bits", "2", "--max-drop", "5"], table
    only = '[network]\nactivations = "none"\n'
    perceptron, feeds = products(folder)
    for method in ("rtn", "mse", "gptq", "descent"):
        words = ["--bits", "4", "--group", "16", "--method", method]
        yield f"products nbits {method}", perceptron, words, f'{only}[data]\nsource = "{feeds}"\n'
    yield "products nbits without data", perceptron, ["--bits", "8", "--group", "32", "--method", "mse"], only
    shared = ROOT.parent / "shared"
    if (shared / "models" / "resnet20-cifar10").exists():
        resnet = next((shared / "models" / "resnet20-cifar10").glob("*.onnx"))
        cifar = shared / "data" / "cifar10"
        yield (
            "resnet20",
            resnet,
            [],
            (
                f'[data]\nsource = "{cifar / "calibration"}"\nheldout = "{cifar / "test"}"\nsamples = 32\n'
                "heldout_samples = 32\n[data.image]\nmean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n"
            ),
        )


def products(folder: Path) -> tuple[Path, Path]:
    """A network of two MatMuls, and samples for it."""
    from tests.networks import Net

    net = Net()
    hidden = net.add("Relu", net.add("Add", net.add("MatMul", "x", net.weight(64, 128)), net.weight(128)))
    out = net.add("MatMul", hidden, net.weight(128, 32))
    model = net.model({"x": [None, 64]}, [out])
    onnx.save(model, str(folder / "products.onnx"))
    np.save(folder / "products.npy", np.random.default_rng(0).normal(size=(96, 64)).astype(np.float32))
    return folder / "products.onnx", folder / "products.npy"


def old() -> bool:
    """Whether this is the code from before options became each method's own."""
    return (Path(bitwright.__file__).parent / "engine" / "integer").exists()


def digest(model: Path, options: list[str], recipe: str, folder: Path) -> dict[str, str]:
    """The hashes of what `quantize` writes, by file; or the line it ended in."""
    out = folder / ("out.onnx" if model.suffix == ".onnx" else "out")
    words = ["quantize", str(model), "-o", str(out), "--threads", "1", "--json", *options]
    if recipe:
        (folder / "recipe.toml").write_text(recipe)
        words += ["--recipe", str(folder / "recipe.toml")]
    told, said = io.StringIO(), io.StringIO()
    with redirect_stdout(told), redirect_stderr(said):
        try:
            app(words)
        except SystemExit as end:
            if end.code:
                return {"error": said.getvalue().strip().splitlines()[-1].replace(str(folder), "")}
    files = [out, out.with_name("out.onnx.data")] if out.suffix == ".onnx" else sorted(out.rglob("*"))
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.name.endswith(ENDINGS) and p.exists()
            and not p.name.endswith(("certificate.json", "tokenizer_config.json", "generation_config.json"))}  # fmt: skip


def main() -> None:
    job, path = sys.argv[1], Path(sys.argv[2])
    only = sys.argv[3:]
    load()
    torch.set_num_threads(1)
    before = json.loads(path.read_text()) if job == "compare" else {}
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as home:
        for name, model, options, recipe in cases(Path(home)):
            if only and not any(word in name for word in only):
                continue
            folder = Path(home) / "work"
            folder.mkdir()
            found[name] = digest(model, options, recipe, folder)
            shutil.rmtree(folder)
            same = "" if job == "record" else "same" if before.get(name) == found[name] else f"DIFFERS: {found[name]}"
            print(f"{name:<34} {same or found[name].get('error', 'written')}", flush=True)
    if job == "record":
        path.write_text(json.dumps(found, indent=1) + "\n")
    elif any(before.get(name) != value for name, value in found.items()):
        sys.exit(1)


main()
