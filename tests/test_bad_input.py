"""Whatever is wrong with the input, the command line says so in one line that names it, and leaves no output behind.

    bitwright: WHERE: cause. fix

Every case damages a copy of a tiny real model, or writes a wrong option, and drives the real command line.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from bitwright.cli import app
from bitwright.files.containers.compressed_tensors.rules import dense, installed
from bitwright.files.folder import open_checkpoint
from tests import tiny

Damage = Callable[[Path], object]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
Q_PROJ, NORM, EMBEDDING = (
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.1.input_layernorm.weight",
    "model.embed_tokens.weight",
)
RTN = "--method rtn --group 32"
TEXT = " ".join(f"word {i * i} of {i % 7}" for i in range(2000))
CALIBRATED = "--group 32 --calib {tmp}/text.txt --windows 4 --length 32 --heldout-windows 2"
OWN_TEXT = "--group 32 --windows 2 --length 16 --heldout-windows 2"

# Python hides these from users; any other warning would be a line that nobody asked for, and fails the case.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

network: list[str] = []
"""Every attempt of this process to reach the network."""
sys.addaudithook(lambda name, _: network.append(name) if name in ("socket.connect", "socket.getaddrinfo") else None)


# ---- models ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny folder of each kind that the cases need; cases work on copies."""
    base = tmp_path_factory.mktemp("models")
    made = {
        "plain": tiny.make("llama", base / "plain"),
        "sharded": tiny.make("llama", base / "sharded", max_shard="150KB"),
        "tied": tiny.make("qwen2", base / "tied"),
        "odd": tiny.make("llama", base / "odd", intermediate_size=96),
        "tall": tiny.make("llama", base / "tall", intermediate_size=33024, num_hidden_layers=1),
        "wide": tiny.make("llama", base / "wide", vocab_size=140_000, num_hidden_layers=1),
        "other": tiny.make("llama", base / "other", vocab_size=512),
    }
    for name, options in {"int4": "--group 32", "zeros": "--group 32 --asymmetric"}.items():
        done = bitwright(f"quantize {made['plain']} -o {base / name} --method rtn {options}")
        assert done.exit_code == 0, done.output
        made[name] = base / name
    return made


def bitwright(line: str) -> Result:
    """Run a command line in this process."""
    return CliRunner().invoke(app, line.split())


def rewrite(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    """Change the tensors of a single-file model."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})

    return damage


def poke(name: str, index: tuple[int, ...], value: float) -> Damage:
    """Set one weight."""
    return rewrite(lambda tensors: tensors[name].__setitem__(index, value))


def header(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Change the header of a single-file model; the bytes of the tensors stay."""

    def damage(folder: Path) -> None:
        raw = (folder / WEIGHTS).read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        table = json.loads(raw[8 : 8 + length])
        change(table)
        text = json.dumps(table).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])

    return damage


def begin_with(head: bytes) -> Damage:
    """Overwrite the first bytes of the weight file."""
    return lambda folder: (folder / WEIGHTS).write_bytes(head + (folder / WEIGHTS).read_bytes()[len(head) :])


def cut_off(name: str) -> Damage:
    """Leave out the last bytes of a file."""
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - 100)


def config(**changes: Any) -> Damage:
    """Set keys of config.json."""

    def damage(folder: Path) -> None:
        table = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(table | changes))

    return damage


def quantization(**changes: Any) -> Damage:
    """Set keys of the first weight group in quantization_config."""

    def damage(folder: Path) -> None:
        table = json.loads((folder / "config.json").read_text())
        table["quantization_config"]["config_groups"]["group_0"]["weights"] |= changes
        (folder / "config.json").write_text(json.dumps(table))

    return damage


def index(change: Callable[[dict[str, str]], object]) -> Damage:
    """Change the index of a sharded model."""

    def damage(folder: Path) -> None:
        table = json.loads((folder / INDEX).read_text())
        change(table["weight_map"])
        (folder / INDEX).write_text(json.dumps(table))

    return damage


def write(name: str, text: str | bytes) -> Damage:
    """Replace a file of the model, or write one beside it (`../name`)."""
    return lambda folder: (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)


def remove(*names: str) -> Damage:
    """Delete files."""
    return lambda folder: [(folder / name).unlink() for name in names]


def nothing(folder: Path) -> None:
    """The model is as it should be."""


def enlarge(folder: Path) -> None:
    """Give the model an embedding and head of 2 TB, as a sparse file: no disk can hold what it becomes."""
    rows = 1 << 33

    def grow(table: dict[str, Any]) -> None:
        end = max(info["data_offsets"][1] for name, info in table.items() if name != "__metadata__")
        for name in (EMBEDDING, "lm_head.weight"):
            table[name] = {"dtype": "BF16", "shape": [rows, 64], "data_offsets": [end, end + rows * 128]}
            end += rows * 128

    header(grow)(folder)
    config(vocab_size=rows)(folder)
    try:
        os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size + 2 * rows * 128)
    except OSError as error:
        pytest.skip(f"this file system has no sparse files of that size ({error.strerror})")


def overlap(table: dict[str, Any]) -> None:
    """Let one tensor begin inside another."""
    table[Q_PROJ]["data_offsets"] = table["model.layers.1.self_attn.q_proj.weight"]["data_offsets"]


def bert(folder: Path) -> None:
    """Put an encoder in place of the model."""
    import transformers

    (folder / WEIGHTS).unlink()
    made = transformers.BertConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4, vocab_size=1024
    )
    transformers.BertForMaskedLM(made).save_pretrained(folder)


# ---- errors ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bad:
    """One kind of bad input: how a copy of `model` is damaged, the command, and what its one line must name."""

    id: str
    damage: Damage
    says: tuple[str, ...]
    command: str = "quantize {model} -o {out} " + RTN
    model: str = "plain"
    code: int = 2
    recipe: str | None = None
    as_json: bool = True


def quantize(options: str) -> str:
    """The quantize command with other options than round-to-nearest."""
    return "quantize {model} -o {out} " + options


def recipe(text: str) -> dict[str, str]:
    """A case driven by a recipe."""
    return {"recipe": text, "command": "quantize {model} -o {out} --recipe {tmp}/recipe.toml"}


SMALL = '[layer]\nmethod = "rtn"\ngroup = 32\n'
NAN, INF = float("nan"), float("inf")
FILE = f"model/{WEIGHTS}"
LAST = "model.layers.1.mlp.down_proj.weight"

MODELS = [
    Bad(
        "missing-folder",
        nothing,
        ("{tmp}/modle", "no such folder", "Did you mean {model}?"),
        "quantize {tmp}/modle -o {out} " + RTN,
    ),
    Bad("missing-folder-plan", nothing, ("{tmp}/modle", "Did you mean {model}?"), "plan {tmp}/modle"),
    Bad("missing-folder-measure", nothing, ("{tmp}/modle", "Did you mean {model}?"), "measure {tmp}/modle {model}"),
    Bad(
        "model-is-a-file",
        nothing,
        ("config.json", "a file, not a model", "the model's folder, {model}"),
        "quantize {model}/config.json -o {out}",
    ),
    Bad("no-config", remove("config.json"), ("{model}", "no config.json", "Give a Hugging Face model folder")),
    Bad(
        "empty-folder",
        lambda folder: (folder.parent / "empty").mkdir(),
        ("{tmp}/empty", "no config.json"),
        "quantize {tmp}/empty -o {out} " + RTN,
    ),
    Bad("config-not-json", write("config.json", "{hidden_size: 64"), ("config.json", "cannot be read", "Download")),
    Bad("config-not-a-table", write("config.json", "[1, 2]"), ("config.json", "not a table", "Download")),
    Bad("config-too-deep", write("config.json", "[" * 99_999), ("config.json", "nested too deep", "Download")),
    Bad(
        "generation-config-too-deep",
        write("generation_config.json", "[" * 99_999),
        ("generation_config.json", "nested too deep", "Remove it"),
    ),
    Bad(
        "tokenizer-too-deep",
        write("tokenizer.json", "[" * 99_999),
        ("{model}", "no tokenizer", "Copy the model's tokenizer"),
        quantize(CALIBRATED),
    ),
    Bad("index-too-deep", write(INDEX, "[" * 99_999), (INDEX, "cannot be read", "Download it again"), model="sharded"),
    Bad(
        "config-is-a-pipe",
        lambda folder: ((folder / "config.json").unlink(), os.mkfifo(folder / "config.json")),
        ("model/config.json", "not a regular file", "download the file again"),
    ),
    Bad(
        "weights-are-a-pipe",
        lambda folder: ((folder / WEIGHTS).unlink(), os.mkfifo(folder / WEIGHTS)),
        (FILE, "not a regular file", "download the file again"),
    ),
    Bad(
        "tokenizer-is-a-link-to-nothing",
        lambda folder: ((folder / "tokenizer.json").unlink(), (folder / "tokenizer.json").symlink_to("blob")),
        ("model/tokenizer.json", "a link to nothing", "download the file again"),
    ),
    Bad("config-not-utf8", write("config.json", b"\xff\xfe{}"), ("config.json", "cannot be read", "Download")),
    Bad("no-safetensors", remove(WEIGHTS), ("{model}", "no .safetensors", "convert")),
    Bad("truncated-file", cut_off(WEIGHTS), (FILE, "truncated", "Download or copy it again")),
    Bad(
        "truncated-shard",
        cut_off("model-00002-of-00003.safetensors"),
        ("model-00002-of-00003.safetensors", "truncated", "Download or copy it again"),
        model="sharded",
    ),
    Bad(
        "empty-shard",
        write("model-00002-of-00003.safetensors", ""),
        ("model-00002-of-00003.safetensors", "not a whole safetensors file", "Download or copy it again"),
        model="sharded",
    ),
    Bad(
        "absent-shard",
        remove("model-00002-of-00003.safetensors"),
        ("{model}", "model-00002-of-00003.safetensors", "absent", "Download it"),
        model="sharded",
    ),
    Bad(
        "index-without-tensor",
        index(lambda names: names.update({"model.ghost.weight": "model-00001-of-00003.safetensors"})),
        (INDEX, "model.ghost.weight", "model-00001-of-00003.safetensors", "Download"),
        model="sharded",
    ),
    Bad(
        "index-names-other-shard",
        index(lambda names: names.update({Q_PROJ: "model-00003-of-00003.safetensors"})),
        (INDEX, Q_PROJ, "model-00003-of-00003.safetensors", "Download"),
        model="sharded",
    ),
    Bad("index-not-json", write(INDEX, "{"), (INDEX, "cannot be read", "Download it again"), model="sharded"),
    Bad(
        "index-not-a-table",
        write(INDEX, '{"weight_map": []}'),
        (INDEX, "cannot be read", "Download it again"),
        model="sharded",
    ),
    Bad("header-length", begin_with(b"\xff" * 8), (FILE, "header length", "Download or copy it again")),
    Bad(
        "header-garbage",
        begin_with(struct.pack("<Q", 100) + b"\x80nonsense"),
        (FILE, "corrupt", "Download or copy it again"),
    ),
    Bad(
        "header-not-json",
        begin_with(struct.pack("<Q", 12) + b"{not json..}"),
        (FILE, "corrupt", "Download or copy it again"),
    ),
    Bad(
        "header-too-deep",
        lambda folder: (folder / WEIGHTS).write_bytes(struct.pack("<Q", 200_000) + b"[" * 200_000),
        (FILE, "corrupt", "Download or copy it again"),
    ),
    Bad("header-list", begin_with(struct.pack("<Q", 2) + b"[]"), (FILE, "corrupt", "Download or copy it again")),
    Bad(
        "header-metadata", header(lambda t: t.update(__metadata__="pt")), (FILE, "corrupt", "Download or copy it again")
    ),
    Bad(
        "header-entry", header(lambda t: t[Q_PROJ].pop("shape")), (FILE, Q_PROJ, "corrupt", "Download or copy it again")
    ),
    Bad(
        "header-offset-text",
        header(lambda t: t[Q_PROJ].update(data_offsets=["0", "8192"])),
        (FILE, Q_PROJ, "corrupt", "Download or copy it again"),
    ),
    Bad("header-overlap", header(overlap), (FILE, Q_PROJ, "overlap", "Download")),
    Bad(
        "header-shape",
        header(lambda t: t[Q_PROJ].update(shape=[64, 65])),
        (FILE, Q_PROJ, "[64, 65]", "8320", "Download"),
    ),
    Bad(
        "header-negative-shape",
        header(lambda t: t[Q_PROJ].update(shape=[-64, -64])),
        (FILE, Q_PROJ, "[-64, -64]", "Download"),
    ),
    Bad("dtype-e8m0", header(lambda t: t[Q_PROJ].update(dtype="F8_E8M0")), (FILE, Q_PROJ, "F8_E8M0", "Supported")),
    Bad("dtype-i4", header(lambda t: t[Q_PROJ].update(dtype="I4")), (FILE, Q_PROJ, "I4", "Supported")),
    Bad("dtype-list", header(lambda t: t[Q_PROJ].update(dtype=["F32"])), (FILE, Q_PROJ, "['F32']", "Supported")),
    Bad("config-shapes", config(intermediate_size=256), (FILE, "mlp.", "[64, 256]", "[64, 128]", "config.json")),
    Bad("config-more-layers", config(num_hidden_layers=3), ("{model}", "model.layers.2.", "config.json")),
    Bad(
        "config-heads", config(num_attention_heads=0), ("model/config.json", "an invalid value", "Use the config.json")
    ),
    Bad("config-text-for-number", config(hidden_size="sixty-four"), ("config.json", "hidden_size")),
    Bad(
        "unknown-architecture",
        config(model_type="frobnicator", architectures=["Frobnicator"]),
        ("config.json", "frobnicator", "Use a decoder"),
    ),
    Bad(
        "remote-code",
        config(model_type="frobnicator", auto_map={"AutoConfig": "modeling.Config"}),
        ("config.json", "frobnicator", "without remote code"),
    ),
    Bad(
        "no-model-type",
        write("config.json", '{"hidden_size": 64}'),
        ("config.json", "model_type None", "Use a decoder"),
    ),
    Bad("encoder-only", bert, ("{model}", "not a decoder language model (BertConfig", "Give a causal language model")),
    Bad("already-quantized", nothing, ("{model}", "already quantized", "Start from the float model"), model="int4"),
    Bad(
        "quantized-elsewhere", config(quantization_config={"quant_method": "gptq"}), ("{model}", "'gptq'", "Supported")
    ),
    Bad(
        "hub-name",
        nothing,
        ("Qwen/Qwen3-0.6B", "no such folder", "hub:Qwen/Qwen3-0.6B"),
        "quantize Qwen/Qwen3-0.6B -o {out}",
    ),
]

VALUES = [
    Bad(f"{name}-{place}-{how}", poke(tensor, at, value), (FILE, tensor, name, str(list(at)), "Repair"), command)
    for how, command in {
        "rtn": quantize(RTN),
        "calibrated": quantize(CALIBRATED),
        "default": quantize(OWN_TEXT),
    }.items()
    for name, value in {"nan": NAN, "inf": -INF}.items()
    for place, tensor, at in [
        ("matrix", Q_PROJ, (5, 7)),
        ("last", LAST, (63, 127)),
        ("norm", NORM, (9,)),
        ("embedding", EMBEDDING, (1000, 3)),
    ]
] + [
    Bad(
        "nan-matrix-later-chunk",
        poke("model.layers.0.mlp.up_proj.weight", (33023, 1), NAN),
        (FILE, "model.layers.0.mlp.up_proj.weight", "nan", "[33023, 1]", "Repair"),
        model="tall",
    ),
    Bad(
        "inf-embedding-later-chunk",
        poke(EMBEDDING, (139_999, 63), INF),
        (FILE, EMBEDDING, "inf", "[139999, 63]", "Repair"),
        model="wide",
    ),
]

OPTIONS = [
    Bad("unknown-command", nothing, ("quantise", "Did you mean 'quantize'", "--help"), "quantise {model} -o {out}"),
    Bad(
        "unknown-option",
        nothing,
        ("--bist", "Did you mean --bits", "quantize --help"),
        "quantize {model} -o {out} --bist 4",
    ),
    Bad("missing-out", nothing, ("--out", "quantize --help"), "quantize {model}"),
    Bad("twice", nothing, ("quantize", "--bits is given 2 times", "--help"), quantize("--bits 4 --bits 8")),
    Bad("same-twice", nothing, ("--method is given 2 times", "--help"), quantize("--method rtn --method rtn")),
    Bad(
        "symmetric-and-not",
        nothing,
        ("--symmetric/--asymmetric is given 2 times", "--help"),
        quantize("--symmetric --asymmetric"),
    ),
    Bad("out-twice", nothing, ("-o is given 2 times", "--help"), "quantize {model} -o {out} --out {out}2"),
    Bad(
        "fixed-group",
        nothing,
        ("--group", "mxfp4 has blocks of 32", "Leave it out"),
        quantize("--format mxfp4 --group 64"),
    ),
    Bad("no-zeros", nothing, ("--asymmetric", "fp8 stores no zero points"), quantize("--format fp8 --asymmetric")),
    Bad("not-a-number", nothing, ("--bits", "integer", "quantize --help"), quantize("--bits four")),
    Bad("no-threads", nothing, ("--threads", "equal to 1", "quantize --help"), quantize("--threads 0")),
    Bad("bits-9", nothing, ("--bits", "9 bits", "Choose 1 to 8"), quantize("--bits 9")),
    Bad("bits-0", nothing, ("--bits", "0 bits", "Choose 1 to 8"), quantize("--bits 0")),
    *(
        []
        if dense(installed())
        else [
            Bad(
                "bits-3",
                nothing,
                ("int3", "no stable packing", "Use int2, int4"),
                quantize("--bits 3 --group 32 --method rtn"),
            )
        ]
    ),
    Bad("bits-and-format", nothing, ("--bits", "--format", "Give one"), quantize("--bits 4 --format fp8")),
    Bad("format-unknown", nothing, ("'int44'", "int4"), quantize("--format int44")),
    Bad("format-without-packing", nothing, ("nf4", "--simulate"), quantize("--format nf4 --group 32 --method rtn")),
    Bad(
        "codebook-without-lloyd",
        nothing,
        ("lloyd", "--method lloyd"),
        quantize("--format codebook3 --method rtn --simulate --group 32"),
    ),
    Bad("method-unknown", nothing, ("method", "'gtpq'", "Did you mean gptq?"), quantize("--method gtpq")),
    Bad("group-text", nothing, ("group", "'chanel'", "Did you mean channel?"), quantize("--method rtn --group chanel")),
    Bad("group-0", nothing, ("group", "0"), quantize("--method rtn --group 0")),
    Bad("group-negative", nothing, ("group", "-1"), quantize("--method rtn --group -1")),
    Bad(
        "group-1000",
        nothing,
        ("model.layers.0.mlp.down_proj.weight", "groups of 1000", "Give group 64", "all 14 matrices"),
        quantize("--method rtn --group 1000"),
    ),
    Bad(
        "fixed-blocks",
        nothing,
        ("model.layers.0.mlp.down_proj.weight", "128 inputs", "blocks of q4_k, which are fixed", "another format"),
        quantize("--method rtn --format q4_k --simulate"),
    ),
    Bad("to-network", nothing, ("output", "qdq does not hold language models", "float"), quantize(RTN + " --to qdq")),
    Bad("bind", nothing, ("--bind", "ONNX networks only", "Leave it out"), quantize(RTN + " --bind a=3")),
    Bad("max-drop-no-text", nothing, ("max_drop", "no text", "--calib"), quantize(RTN + " --max-drop 1")),
    Bad("max-drop-inf", nothing, ("max_drop", "finite"), quantize(RTN + " --max-drop inf")),
    Bad("threads-too-many", nothing, ("--threads", "99999999", "1 to 1024"), quantize(RTN + " --threads 99999999")),
    Bad("activations-unknown", nothing, ("activations", "'int4'"), quantize("--activations int4")),
    Bad(
        "activations-with-int4",
        nothing,
        ("activations", "8-bit", "--bits 8 --group channel"),
        quantize("--activations int8 --group 32 --method rtn"),
    ),
    Bad("windows-0", nothing, ("windows", "0"), quantize("--windows 0")),
    Bad("length-1", nothing, ("length", "1"), quantize("--length 1")),
    Bad("indivisible-unknown", nothing, ("indivisible", "'skip'"), quantize("--indivisible skip")),
    Bad("max-ram-nonsense", nothing, ("--max-ram", "'lots'", "Write for example 2GB"), quantize("--max-ram lots")),
    Bad("max-ram-zero", nothing, ("--max-ram", "'0GB'", "Write for example 2GB"), quantize("--max-ram 0GB")),
    Bad(
        "max-ram-too-small",
        nothing,
        ("--max-ram", "needs", "MiB", "Give --max-ram"),
        quantize(RTN + " --max-ram 100MB"),
        code=3,
    ),
    Bad("device-unknown", nothing, ("--device", "'tpu'", "cpu"), quantize(RTN + " --device tpu")),
    Bad(
        "indivisible",
        nothing,
        (
            "model.layers.0.mlp.down_proj.weight",
            "96 inputs",
            "groups of 64",
            "Give group 32, the best that fits all 14 matrices",
            "--indivisible",
        ),
        quantize("--method rtn --group 64"),
        "odd",
    ),
    Bad(
        "too-much-float",
        nothing,
        ("{model}", "20.0 %", "limit 10 %", "down_proj", "max_float_percent"),
        quantize("--method rtn --group 64 --indivisible float"),
        "odd",
    ),
    Bad(
        "out-exists",
        lambda folder: (folder.parent / "out-file").write_text("mine"),
        ("{tmp}/out-file", "exists", "Choose another -o"),
        "quantize {model} -o {tmp}/out-file " + RTN,
    ),
    Bad(
        "out-in-a-file",
        lambda folder: (folder.parent / "file").write_text("mine"),
        ("{tmp}/file", "cannot be written", "Choose another -o"),
        "quantize {model} -o {tmp}/file/out " + RTN,
        code=3,
    ),
    Bad(
        "out-is-a-link-to-nothing",
        lambda folder: (folder.parent / "link").symlink_to("nowhere"),
        ("{tmp}/link", "link to nothing", "Choose another -o"),
        "quantize {model} -o {tmp}/link " + RTN,
    ),
    Bad(
        "out-below-a-link-to-nothing",
        lambda folder: (folder.parent / "link").symlink_to("nowhere"),
        ("{tmp}/link", "a link to nothing", "Make its folder"),
        "quantize {model} -o {tmp}/link/out " + RTN,
    ),
    Bad(
        "out-not-utf8",
        nothing,
        ("out\\udcff", "not UTF-8", "Choose another -o"),
        "quantize {model} -o {out}\udcff " + RTN,
    ),
    Bad(
        "out-too-long",
        nothing,
        ("too long", "Choose a shorter -o"),
        "quantize {model} -o {tmp}/" + "a" * 250 + " " + RTN,
    ),
    Bad(
        "out-unwritable",
        nothing,
        ("/proc/self", "cannot be written", "Choose another -o"),
        "quantize {model} -o /proc/self/bitwright-out " + RTN,
        code=3,
    ),
    Bad("disk-too-small", enlarge, ("{tmp}", "needs", "MB are free", "Free disk space"), code=3),
]

RECIPES = [
    Bad(
        "recipe-missing",
        nothing,
        ("{tmp}/other.toml", "cannot be read", "Give a TOML recipe"),
        quantize("--recipe {tmp}/other.toml"),
    ),
    Bad(
        "recipe-not-toml",
        nothing,
        ("recipe.toml", "not valid TOML", "line 2", "Correct"),
        **recipe("[layer]\nformat = int4"),
    ),
    Bad(
        "recipe-not-utf8",
        lambda folder: (folder.parent / "latin.toml").write_bytes(b"# \xe9"),
        ("latin.toml", "cannot be read", "Give a TOML recipe"),
        quantize("--recipe {tmp}/latin.toml"),
    ),
    Bad("recipe-too-deep", nothing, ("recipe.toml", "nested too deep"), **recipe("a = " + "[" * 99_999)),
    Bad("recipe-is-a-device", nothing, ("/dev/zero", "not a regular file"), quantize("--recipe /dev/zero")),
    Bad(
        "recipe-fixed-group",
        nothing,
        ("recipe: layer.group", "mxfp4 has blocks of 32", "Leave it out"),
        **recipe('[layer]\nformat = "mxfp4"\ngroup = 64'),
    ),
    Bad(
        "rule-no-zeros",
        nothing,
        ("recipe: rules.0.symmetric", "nf4 stores no zero points"),
        **recipe('[[rules]]\nmatch = "*"\nformat = "nf4"\nsymmetric = false'),
    ),
    Bad(
        "recipe-unknown-key",
        nothing,
        ("recipe.toml: layer.fromat", "Did you mean format?"),
        **recipe('[layer]\nfromat = "int4"'),
    ),
    Bad(
        "recipe-unknown-table",
        nothing,
        ("recipe.toml: layers", "Did you mean layer?"),
        **recipe('[layers]\nformat = "int4"'),
    ),
    Bad(
        "recipe-unknown-rule-key",
        nothing,
        ("recipe.toml: rules.0.metod", "Did you mean method?"),
        **recipe('[[rules]]\nmatch = "*"\nmetod = "rtn"'),
    ),
    Bad(
        "recipe-wrong-type",
        nothing,
        ("recipe.toml: calibration.windows", "'many'"),
        **recipe('[calibration]\nwindows = "many"'),
    ),
    Bad("rule-without-match", nothing, ("rules.0.match", "field required"), **recipe('[[rules]]\nformat = "int8"')),
    Bad(
        "options-of-another-method",
        nothing,
        ("recipe.toml: layer.options.damping", "unknown option", "no options"),
        **recipe('[layer]\nmethod = "rtn"\n[layer.options]\ndamping = 0.1'),
    ),
    Bad("recipe-unknown-format", nothing, ("'int44'", "int4"), **recipe('[layer]\nformat = "int44"')),
    Bad(
        "rule-matches-nothing",
        nothing,
        ("'model.layers.0.self_attn.q_porj'", "Did you mean", Q_PROJ),
        **recipe(SMALL + '[[rules]]\nmatch = "model.layers.0.self_attn.q_porj"\nformat = "int8"'),
    ),
    Bad(
        "rule-glob-matches-nothing",
        nothing,
        ("'*.q_porj'", Q_PROJ),
        **recipe(SMALL + '[[rules]]\nmatch = "*.q_porj"\nformat = "int8"'),
    ),
    Bad(
        "nothing-to-do",
        nothing,
        ("{model}", "nothing would be quantized", "Give a format"),
        **recipe('[layer]\nformat = "float"'),
    ),
    Bad(
        "tied-head",
        nothing,
        (EMBEDDING, "shares its tensor", "untie = true"),
        model="tied",
        **recipe(SMALL + '[[rules]]\nmatch = "lm_head"\nformat = "int8"'),
    ),
    Bad(
        "embedding-unknown",
        nothing,
        ("embedding: no format is called 'int9'", "Did you mean int8"),
        f"quantize {{model}} -o {{out}} {RTN} --embedding int9",
    ),
    Bad(
        "embedding-fp8",
        nothing,
        ("embedding: ", "not as fp8", "Use int8 or int4"),
        f"quantize {{model}} -o {{out}} {RTN} --embedding fp8",
        model="tied",
    ),
    Bad(
        "embedding-in-two-ways",
        nothing,
        ("transformers decodes this folder while it loads it", "not int8 and int4", "--simulate"),
        f"quantize {{model}} -o {{out}} {RTN} --bits 8 --embedding int4",
        model="tied",
    ),
]

TEXTS = [
    Bad(
        "calib-missing",
        nothing,
        ("{tmp}/txet.txt", "no such file", "Did you mean text.txt?"),
        quantize("--group 32 --calib {tmp}/txet.txt"),
    ),
    Bad(
        "calib-empty",
        write("../empty.txt", ""),
        ("empty.txt", "no text", "Give"),
        quantize("--group 32 --calib {tmp}/empty.txt"),
    ),
    Bad(
        "calib-blank",
        write("../empty.txt", " \n\n"),
        ("empty.txt", "no text", "Give"),
        quantize("--group 32 --calib {tmp}/empty.txt"),
    ),
    Bad(
        "calib-too-short",
        write("../short.txt", "Hello."),
        ("short.txt", "too short", "Give more text"),
        quantize("--group 32 --calib {tmp}/short.txt"),
    ),
    Bad(
        "calib-latin1",
        write("../latin.txt", "caf\xe9 ".encode("latin-1") * 99),
        ("latin.txt", "not UTF-8", "offset 3", "iconv"),
        quantize("--group 32 --calib {tmp}/latin.txt"),
    ),
    Bad(
        "calib-bad-jsonl",
        write("../bad.jsonl", '{"text": "good"}\n{"text": bad}\n'),
        ("bad.jsonl line 2", "not valid JSON", "Write one"),
        quantize("--group 32 --calib {tmp}/bad.jsonl"),
    ),
    Bad(
        "calib-too-deep",
        write("../bad.jsonl", '{"text": ' + "[" * 99_999),
        ("bad.jsonl line 1", "nested too deep", "Write one"),
        quantize("--group 32 --calib {tmp}/bad.jsonl"),
    ),
    Bad(
        "calib-is-a-pipe",
        lambda folder: os.mkfifo(folder.parent / "pipe"),
        ("{tmp}/pipe", "not a regular file", "Give a text file"),
        quantize("--group 32 --calib {tmp}/pipe"),
    ),
    Bad(
        "calib-no-text-key",
        write("../bad.jsonl", '{"body": "good"}\n'),
        ("bad.jsonl line 1", "'body'", '"text"'),
        quantize("--group 32 --calib {tmp}/bad.jsonl"),
    ),
    Bad(
        "calib-empty-folder",
        lambda folder: (folder.parent / "texts").mkdir(),
        ("{tmp}/texts", "holds no", "Name a file"),
        quantize("--group 32 --calib {tmp}/texts"),
    ),
    Bad(
        "heldout-missing",
        nothing,
        ("{tmp}/held.txt", "no such file"),
        quantize(CALIBRATED + " --heldout {tmp}/held.txt"),
    ),
    Bad(
        "tokenizer-missing",
        remove("tokenizer.json", "tokenizer_config.json"),
        ("{model}", "no tokenizer", "Copy the model's tokenizer files here"),
        quantize(CALIBRATED),
    ),
    Bad(
        "tokenizer-missing-own-text",
        remove("tokenizer.json", "tokenizer_config.json"),
        ("{model}", "no tokenizer", "Copy the model's tokenizer files here"),
        quantize(OWN_TEXT),
    ),
    Bad(
        "tokenizer-garbage",
        write("tokenizer.json", "{"),
        ("{model}", "no tokenizer", "Copy the model's tokenizer"),
        quantize(CALIBRATED),
    ),
    Bad("tokenizer-of-another-model", nothing, ("{model}", "tokenizer", "512"), quantize(CALIBRATED), "other"),
    Bad("window-beyond-model", nothing, ("length", "128"), quantize(CALIBRATED.replace("--length 32", "--length 512"))),
    Bad(
        "measure-other-vocabulary",
        lambda folder: None,
        ("{models}/other", "vocabulary has 512", "share one"),
        "measure {model} {models}/other --heldout {tmp}/text.txt --windows 2 --length 32",
    ),
    Bad(
        "measure-smaller-vocabulary",
        lambda folder: None,
        ("tokenizer", "512"),
        "measure {model} {models}/plain --heldout {tmp}/text.txt --windows 2 --length 32",
        "other",
    ),
]

SCALE = "model.layers.0.self_attn.q_proj.weight_scale"
PACKED = "model.layers.0.self_attn.q_proj.weight_packed"
CHECK = "check {model}"
CHECKS = [
    Bad("check-nan-scale", poke(SCALE, (3, 1), NAN), ("{model}", SCALE, "nan", "[3, 1]"), CHECK, "int4", 1),
    Bad(
        "check-packed-shape",
        rewrite(lambda t: t.update({PACKED: t[PACKED][:, :4].contiguous()})),
        ("{model}", "model.layers.0.self_attn.q_proj", "weight_packed is [64, 4]", "[64, 8]"),
        CHECK,
        "int4",
        1,
    ),
    Bad(
        "check-scale-shape",
        rewrite(lambda t: t.update({SCALE: t[SCALE][:, :1].contiguous()})),
        ("{model}", "model.layers.0.self_attn.q_proj", "weight_scale is [64, 1]", "[64, 2]"),
        CHECK,
        "int4",
        1,
    ),
    Bad(
        "check-no-scale",
        rewrite(lambda t: t.pop(SCALE)),
        ("{model}", "no tensor, first model.layers.0.self_attn.q_proj.weight"),
        CHECK,
        "int4",
        1,
    ),
    Bad(
        "check-no-codes",
        rewrite(lambda t: t.pop(PACKED)),
        ("{model}", "model.layers.0.self_attn.q_proj", "codes"),
        CHECK,
        "int4",
        1,
    ),
    Bad(
        "check-no-shape",
        rewrite(lambda t: t.pop(PACKED.replace("packed", "shape"))),
        ("{model}", "model.layers.0.self_attn.q_proj", "codes"),
        CHECK,
        "int4",
        1,
    ),
    Bad(
        "check-wrong-shape",
        rewrite(lambda t: t[PACKED.replace("packed", "shape")].copy_(torch.tensor([64, 128]))),
        ("{model}", "model.layers.0.self_attn.q_proj", "[64, 128]"),
        CHECK,
        "int4",
        1,
    ),
    Bad(
        "check-no-zeros",
        rewrite(lambda t: t.pop(PACKED.replace("packed", "zero_point"))),
        ("{model}", "model.layers.0.self_attn.q_proj", "weight_zero_point is absent"),
        CHECK,
        "zeros",
        1,
    ),
    Bad(
        "check-config-int8",
        quantization(num_bits=8),
        ("{model}", "mlp.down_proj: weight_packed is [64, 16], int8 of [64, 128]"),
        CHECK,
        "int4",
        1,
    ),
    Bad(
        "check-config-group",
        quantization(group_size=16),
        ("{model}", "mlp.down_proj: weight_scale is [64, 4]", "[64, 8]"),
        CHECK,
        "int4",
        1,
    ),
    Bad("check-config-group-0", quantization(group_size=0), ("{model}", "group", "0"), CHECK, "int4", 1),
    Bad("check-config-no-group", quantization(group_size=None), ("{model}", "group", "None"), CHECK, "int4", 1),
    Bad("check-config-strategy", quantization(strategy="spiral"), ("{model}", "spiral"), CHECK, "int4", 1),
    Bad(
        "check-config-garbage", config(quantization_config="int4"), ("{model}", "quantization_config"), CHECK, "int4", 1
    ),
    Bad("check-nan-norm", poke(NORM, (9,), NAN), ("{model}", NORM, "nan", "[9]"), CHECK, "int4", 1),
    Bad("check-truncated", cut_off(WEIGHTS), (FILE, "truncated"), CHECK, "int4", 1),
    Bad("check-missing-folder", nothing, ("{tmp}/modle", "Did you mean {model}?"), "check {tmp}/modle", "int4", 1),
    Bad("check-windows-alone", nothing, ("--windows", "Give --heldout"), CHECK + " --windows 4", "int4"),
    Bad(
        "check-other-certificate",
        write("certificate.json", '{"rows": []}'),
        ("{model}", "certificate.json", "is not a certificate"),
        CHECK,
        "int4",
        1,
    ),
    Bad("check-heldout-alone", nothing, ("--heldout", "--against"), CHECK + " --heldout {tmp}/text.txt", "int4"),
    Bad(
        "check-against-missing",
        nothing,
        ("{tmp}/modle", "Did you mean {model}?"),
        CHECK + " --against {tmp}/modle",
        "int4",
    ),
]


REPORTS = [
    Bad(
        "report-no-certificate",
        nothing,
        ("{model}", "has no certificate.json", "Give an output of bitwright quantize"),
        "report {model}",
        as_json=False,
    ),
    Bad(
        "report-missing-folder",
        nothing,
        ("{tmp}/modle", "is not there", "Give an output"),
        "report {tmp}/modle",
        as_json=False,
    ),
    Bad(
        "report-certificate-not-json",
        write("certificate.json", "{"),
        ("model/certificate.json", "cannot be read", "Give an output"),
        "report {model}",
        as_json=False,
    ),
    Bad(
        "report-certificate-of-another",
        write("certificate.json", '{"title": "swimming"}'),
        ("model/certificate.json", "is not a certificate", "Give an output"),
        "report {model}",
        as_json=False,
    ),
    Bad(
        "report-certificate-too-deep",
        write("certificate.json", "[" * 99_999),
        ("model/certificate.json", "nested too deep", "Give an output"),
        "report {model}",
        as_json=False,
    ),
    Bad(
        "report-format-contradicts",
        nothing,
        ("--format", "contradicts -o report.html", "Give one"),
        "report {model} --format md -o {tmp}/report.html",
        "int4",
        as_json=False,
    ),
    Bad(
        "report-format",
        nothing,
        ("--format", "'pdf'", "Choose md, json or html"),
        "report {model} --format pdf",
        "int4",
        as_json=False,
    ),
    Bad(
        "report-out-exists",
        nothing,
        ("{tmp}/text.txt", "exists", "Choose another -o"),
        "report {model} -o {tmp}/text.txt",
        "int4",
        as_json=False,
    ),
    Bad(
        "report-out-nowhere",
        nothing,
        ("{tmp}/no/report.md", "No such file or directory", "Check the path"),
        "report {model} -o {tmp}/no/report.md",
        "int4",
        3,
        as_json=False,
    ),
]


@dataclass
class Place:
    """The folder of a case and the names in it."""

    tmp: Path
    case: Bad
    models: dict[str, Path]
    names: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        model, out = self.tmp / "model", self.tmp / "out"
        shutil.copytree(self.models[self.case.model], model)
        (self.tmp / "text.txt").write_text(TEXT)
        if self.case.recipe is not None:
            (self.tmp / "recipe.toml").write_text(self.case.recipe)
        self.case.damage(model)
        self.names = {
            "tmp": str(self.tmp),
            "model": str(model),
            "out": str(out),
            "models": str(self.models["plain"].parent),
        }

    @property
    def command(self) -> list[str]:
        """The case's command line."""
        return self.case.command.format(**self.names).split() + ["--json"] * self.case.as_json

    def require(self, code: int, stdout: str, stderr: str) -> None:
        """The contract of every error."""
        assert "Traceback" not in stdout + stderr
        lines = stderr.splitlines()
        assert len(lines) == 1, stderr
        absent = [part for part in self.case.says if part.format(**self.names) not in lines[0]]
        assert not absent, lines[0]
        head, where, cause, fix = split(lines[0])
        assert head == "bitwright"
        assert where
        assert cause
        assert len(fix.split()) >= 2, f"no fix in: {lines[0]}"
        if self.case.as_json:
            last = [json.loads(line) for line in stdout.splitlines()][-1]
            assert last["event"] == "error"
            assert f"bitwright: {last['text']}" == lines[0]
        assert code == self.case.code
        assert not Path(self.names["out"]).exists()


def split(line: str) -> tuple[str, str, str, str]:
    """`head: where: cause. fix` in its parts; empty where one is absent."""
    head, _, rest = line.partition(": ")
    where, _, rest = rest.partition(": ")
    cause, _, fix = rest.partition(". ")
    return head, where, cause, fix


ALL = [*MODELS, *VALUES, *OPTIONS, *RECIPES, *TEXTS, *CHECKS, *REPORTS]
NAMED = {case.id: case for case in ALL}


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.id)
def test_one_line_that_names_it(case: Bad, tmp_path: Path, models: dict[str, Path]) -> None:
    place = Place(tmp_path, case, models)
    network.clear()
    result = CliRunner().invoke(app, place.command)
    assert isinstance(result.exception, SystemExit), result.exc_info
    place.require(result.exit_code, result.stdout, result.stderr)
    assert not network


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_gpu_without_a_gpu(tmp_path: Path, models: dict[str, Path]) -> None:
    case = Bad(
        "cuda", nothing, ("--device", "no GPU is available", "Use --device cpu"), quantize(RTN + " --device cuda")
    )
    place = Place(tmp_path, case, models)
    result = CliRunner().invoke(app, place.command)
    place.require(result.exit_code, result.stdout, result.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "unknown-option",
        "recipe-unknown-key",
        "unknown-architecture",
        "encoder-only",
        "nan-matrix-default",
        "check-nan-scale",
    ],
)
def test_as_a_process(name: str, tmp_path: Path, models: dict[str, Path]) -> None:
    """The same contract from outside: exit code, stdout and stderr of a real process, whatever its libraries print."""
    place = Place(tmp_path, NAMED[name], models)
    done = subprocess.run(
        [sys.executable, "-m", "bitwright.cli", *place.command], capture_output=True, text=True, timeout=300
    )
    place.require(done.returncode, done.stdout, done.stderr)


def test_lines_for_people(tmp_path: Path, models: dict[str, Path]) -> None:
    """Without --json the error is on stderr alone, and the plan before it in words."""
    place = Place(tmp_path, NAMED["nan-matrix-rtn"], models)
    result = CliRunner().invoke(app, place.command[:-1])
    assert result.exit_code == 2
    assert result.stderr.startswith("bitwright: ")
    assert result.stderr.count("\n") == 1
    assert "plan: " in result.stdout
    assert Q_PROJ in result.stderr
    assert Q_PROJ not in result.stdout
    assert '{"event"' not in result.stdout


def test_no_arguments_show_the_help() -> None:
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    assert "quantize" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("damage", ["check-nan-scale", "check-config-int8", "check-nan-norm"])
def test_check_lists_what_is_wrong(damage: str, tmp_path: Path, models: dict[str, Path]) -> None:
    """The finding is an event of its own that is not good, and names the tensor."""
    place = Place(tmp_path, NAMED[damage], models)
    events = [json.loads(line) for line in CliRunner().invoke(app, place.command).stdout.splitlines()]
    bad = [event for event in events if event["event"] == "finding" and not event["good"]]
    assert NAMED[damage].says[1] in bad[0]["detail"]
    others = [] if damage == "check-config-int8" else ["certificate"]  # it names the weights, not the config
    assert [event["what"] for event in bad[1:]] == others


# ---- disks ----------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system of its own with the options given; skips where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("ro", ("{tmp}/disk", "cannot be written", "Choose another -o")),
        ("size=100k", ("{tmp}/disk", "needs", "MB are free", "Free disk space or choose another -o")),
    ],
)
def test_disk(
    options: str, says: tuple[str, ...], tmp_path: Path, models: dict[str, Path], disk: Callable[[str], Path]
) -> None:
    disk(options)
    place = Place(tmp_path, Bad("disk", nothing, says, "quantize {model} -o {tmp}/disk/out " + RTN, code=3), models)
    result = CliRunner().invoke(app, place.command)
    place.require(result.exit_code, result.stdout, result.stderr)
    assert not list((tmp_path / "disk").iterdir())


def test_disk_that_fills_up_on_the_way(tmp_path: Path, models: dict[str, Path], disk: Callable[[str], Path]) -> None:
    """The weights fit and are reserved, what comes beside them does not: an error, and no output under its name."""
    disk(f"size={(models['int4'] / WEIGHTS).stat().st_size // 4096 * 4 + 12}k")
    case = Bad(
        "disk",
        nothing,
        ("{tmp}/disk", "No space left", "free disk space"),
        "quantize {model} -o {tmp}/disk/out " + RTN,
        code=3,
    )
    place = Place(tmp_path, case, models)
    result = CliRunner().invoke(app, place.command)
    place.require(result.exit_code, result.stdout, result.stderr)
    assert not (tmp_path / "disk" / "out").exists()


# ---- what is odd and yet good ---------------------------------------------------------------


def certified(place: Place) -> dict[str, Any]:
    """Run a case that must succeed; returns its certificate, which is strict JSON: no NaN, no Infinity."""
    result = CliRunner().invoke(app, place.command)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""

    def forbid(word: str) -> None:
        raise AssertionError(f"{word} in the certificate")

    text = (Path(place.names["out"]) / "certificate.json").read_text()
    certificate: dict[str, Any] = json.loads(text, parse_constant=forbid)
    return certificate


def decoded(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a folder as floats."""
    checkpoint = open_checkpoint(folder)
    return {name: checkpoint.read(name).float() for name in checkpoint.tensors}


def notes(certificate: dict[str, Any], name: str) -> str:
    """The notes in the row of a matrix."""
    (row,) = [row for row in certificate["rows"] if row["name"] == name]
    return "; ".join(row["notes"])


def test_one_scale_a_row_where_groups_do_not_fit(tmp_path: Path, models: dict[str, Path]) -> None:
    command = quantize("--method rtn --group 64 --indivisible channel")
    certificate = certified(Place(tmp_path, Bad("channel", nothing, (), command, "odd"), models))
    name = "model.layers.0.mlp.down_proj.weight"
    assert "one scale per row: 96 inputs do not divide by 64" in notes(certificate, name)
    assert any(name in note for note in certificate["notes"])
    assert notes(certificate, Q_PROJ) == ""


def test_float_where_groups_do_not_fit(tmp_path: Path, models: dict[str, Path]) -> None:
    text = 'indivisible = "float"\nmax_float_percent = 30\n[layer]\nmethod = "rtn"\ngroup = 64\n'
    place = Place(tmp_path, Bad("float", nothing, (), model="odd", **recipe(text)), models)
    certificate = certified(place)
    name = "model.layers.0.mlp.down_proj.weight"
    assert any(name in note and "left float" in note for note in certificate["notes"])
    assert name not in {row["name"] for row in certificate["rows"]}
    assert torch.equal(decoded(tmp_path / "out")[name], decoded(models["odd"])[name])


@pytest.mark.parametrize(
    "options", [RTN, RTN + " --asymmetric", CALIBRATED, "--method mse --group 32", RTN + " --bits 8"]
)
def test_zeros_stay_zero(options: str, tmp_path: Path, models: dict[str, Path]) -> None:
    def damage(tensors: dict[str, torch.Tensor]) -> None:
        tensors[Q_PROJ][[0, 7, 63]] = 0
        tensors[LAST][:] = 0

    certified(Place(tmp_path, Bad("zeros", rewrite(damage), (), quantize(options)), models))
    after = decoded(tmp_path / "out")
    assert torch.count_nonzero(after[Q_PROJ][[0, 7, 63]]) == 0
    assert torch.count_nonzero(after[Q_PROJ]) > 1000
    assert torch.count_nonzero(after[LAST]) == 0
    assert all(bool(tensor.isfinite().all()) for tensor in after.values())


SINGULAR = """
[layer]
method = "{method}"
group = 32
options = {{ damping = {damping} }}
[calibration]
source = "{source}"
windows = 4
length = 32
heldout_windows = 2
"""


@pytest.mark.parametrize("method", ["gptq", "descent"])
@pytest.mark.parametrize("damping", [0.01, 1e-12])
def test_singular_hessian(method: str, damping: float, tmp_path: Path, models: dict[str, Path]) -> None:
    """One token over and over, through an embedding with dead columns: inputs of rank one.

    With next to no damping every row must say that it was raised. With the usual one it depends on the machine, whose
    bfloat16 products may make the Hessian indefinite: what is written must be sound either way.
    """
    (tmp_path / "one.txt").write_text("a" * 4000)
    text = SINGULAR.format(method=method, damping=damping, source=tmp_path / "one.txt")
    damage = rewrite(lambda tensors: tensors[EMBEDDING][:, :8].zero_())
    certificate = certified(Place(tmp_path, Bad("singular", damage, (), **recipe(text)), models))
    if damping < 0.01:
        for row in certificate["rows"]:
            assert "singular Hessian: damping raised from 1e-12 to " in notes(certificate, row["name"])
    assert all(row["sqnr"] > 10 for row in certificate["rows"])
    assert all(bool(tensor.isfinite().all()) for tensor in decoded(tmp_path / "out").values())


@pytest.mark.parametrize("method", ["gptq", "descent"])
def test_input_that_is_always_zero(method: str, tmp_path: Path, models: dict[str, Path]) -> None:
    damage = rewrite(lambda tensors: tensors["model.layers.0.post_attention_layernorm.weight"].zero_())
    case = Bad("dead", damage, (), quantize(f"--method {method} " + CALIBRATED))
    certificate = certified(Place(tmp_path, case, models))
    for part in ("gate_proj", "up_proj", "down_proj"):
        assert "all zeros: rounded to nearest" in notes(certificate, f"model.layers.0.mlp.{part}.weight")
        assert notes(certificate, f"model.layers.1.mlp.{part}.weight") == ""
