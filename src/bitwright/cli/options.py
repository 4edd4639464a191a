"""The options of the commands on models, with their help texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

from bitwright.errors import RecipeError
from bitwright.registry import names_in

METHODS = names_in("bitwright.methods", "bitwright.methods", ("method",))
CONTAINERS = names_in("bitwright.files.containers", "bitwright.containers")
"""Names for help texts, without importing what they name."""


def starting(names: Iterable[str]) -> Callable[[str], list[str]]:
    """What a shell offers for a word that was begun."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


Model = Annotated[
    str, typer.Argument(help="A model folder, hub:OWNER/NAME[@REVISION] to download one, or an .onnx file.")
]
Bits = Annotated[int | None, typer.Option(help="Bits per weight, for an integer format. Default 4.")]
FormatName = Annotated[
    str | None, typer.Option("--format", help="A format by name, instead of --bits: fp8, nf4, codebook3 ...")
]
Group = Annotated[
    str | None,
    typer.Option(help="Weights per scale: a number, 'channel' or 'tensor'. Default: the largest up to 128 that fits."),
]
Symmetric = Annotated[
    bool | None, typer.Option("--symmetric/--asymmetric", help="Levels even around zero, or with zero points.")
]
MethodName = Annotated[
    str | None,
    typer.Option("--method", help=f"{', '.join(METHODS)}. Default: descent.", autocompletion=starting(METHODS)),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--to",
        help=f"The container: {', '.join(CONTAINERS)}. Default: what fits.",
        autocompletion=starting(CONTAINERS),
    ),
]
Acts = Annotated[
    str | None, typer.Option("--activations", help="Round layer inputs too: none, int8 or fp8 (ONNX: none or int8).")
]
Calib = Annotated[
    list[str] | None,
    typer.Option(
        help="Calibration text: a file, JSONL, folder, stdlib, hub:NAME[@REVISION] or self; once more for each further "
        "source, mixed evenly or by shares, as in a.txt:3. ONNX: samples."
    ),
]
WindowCount = Annotated[
    int | None, typer.Option(help="Number of calibration windows. Default 128; 512 with --effort best.")
]
Length = Annotated[int | None, typer.Option(help="Tokens per window. Default 256.")]
Heldout = Annotated[
    list[str] | None,
    typer.Option(
        help="Text or samples for the verdict; once more for each further source, told beside the first. "
        "Default: a part of --calib, kept apart."
    ),
]
HeldoutCount = Annotated[int | None, typer.Option("--heldout-windows", help="Number of held-out windows. Default 8.")]
Simulate = Annotated[
    bool, typer.Option("--simulate", help="Same as --to float: any format, but the file gets no smaller.")
]
Indivisible = Annotated[str | None, typer.Option(help="If a row is no multiple of the group: error, channel or float.")]
CopyCode = Annotated[
    bool, typer.Option("--copy-code", help="Copy code beside the model (*.py) too, which loading may then run.")
]
Embedding = Annotated[
    str | None,
    typer.Option(help="Language models: the embedding and the head: int8, int4, or float, as they are. Default float."),
]
KvCache = Annotated[
    str | None,
    typer.Option(
        help="Language models: hold keys and values from token to token as fp8, int8 or int4. Default float.",
        autocompletion=starting(("fp8", "int8", "int4")),
    ),
]
MixName = Annotated[
    str | None,
    typer.Option("--type", help="GGUF: the mix, as llama.cpp calls it: q4_k_m, q3_k_m, q2_k, ... Implies --to gguf."),
]
MaxShardSize = Annotated[
    str | None,
    typer.Option(
        help="Bytes of a weight file at most, e.g. 2GB: a larger output is written as shards. "
        "Default: 5GB in a folder; GGUF is one file."
    ),
]
Size = Annotated[
    str | None,
    typer.Option(help="Budget: bytes of the weight files, e.g. 180MB. Formats are chosen by what they cost on data."),
]
Bpw = Annotated[float | None, typer.Option(help="Budget: bits per parameter of the whole model, e.g. 3.6.")]
MaxKl = Annotated[
    float | None,
    typer.Option(
        help="Budget: nats per token (or sample) that may be lost, as predicted; the smallest output is written."
    ),
]
ImatrixFile = Annotated[
    str | None,
    typer.Option(
        "--imatrix",
        help="Language models: an imatrix of llama.cpp weighs columns, in place of --calib.",
    ),
]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="A TOML recipe; command-line options override it.")]
Reading = Annotated[
    Path | None,
    typer.Option("--recipe", help="ONNX: a recipe whose [data] says how samples are read."),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        min=0, help="Most loss allowed, in points of accuracy or percent of perplexity; sensitive parts stay float."
    ),
]
Effort = Annotated[
    str | None,
    typer.Option(
        "--effort",
        help="Quality for time: fast, default or best. Default: default.",
        autocompletion=starting(("fast", "default", "best")),
    ),
]
Bind = Annotated[list[str] | None, typer.Option(help="ONNX: size of an open input dimension, NAME=SIZE or NAME=any.")]
MaxRam = Annotated[str | None, typer.Option(help="Memory limit, e.g. 2GB; the process cannot exceed it.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads. Default: all.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line, for scripts.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="The folder or .onnx file to write; it must not exist.")]


def bound(texts: list[str] | None) -> dict[str, int | str] | None:
    """The values of --bind as a table."""
    if not texts:
        return None
    sizes = [_size_of(text) for text in texts]
    if twice := [name for name, count in Counter(name for name, _ in sizes).items() if count > 1]:
        raise RecipeError(f"{twice[0]} is given twice", where="--bind", fix="Give one size", key="network.bind")
    return dict(sizes)


def _size_of(text: str) -> tuple[str, int | str]:
    """`NAME=SIZE` or `NAME=any` of --bind."""
    name, _, value = text.rpartition("=")
    if not name or not (value == "any" or (value.isdecimal() and int(value) > 0)):
        fix = "Write for example height=224, or height=any"
        raise RecipeError(f"{text!r} is not NAME=SIZE", where="--bind", fix=fix, key="network.bind")
    return name, value if value == "any" else int(value)
