"""What the commands on models can be told, and the recipe that it means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitwright.errors import RecipeError
from bitwright.registry import names_in

METHODS = names_in("bitwright.methods", "bitwright.methods", ("method",))
CONTAINERS = names_in("bitwright.files.containers", "bitwright.containers")
"""Names for help texts, without importing what they name."""

Model = Annotated[str, typer.Argument(help="A model folder, hub:OWNER/NAME to download one, or an .onnx file.")]
Bits = Annotated[int | None, typer.Option(help="Bits per weight (integer format); 4 unless a recipe says otherwise.")]
FormatName = Annotated[
    str | None, typer.Option("--format", help="A format by name instead of --bits: fp8, nf4, codebook3 ...")
]
Group = Annotated[str | None, typer.Option(help="Weights per scale: a number, 'channel' or 'tensor'. Default 128.")]
Symmetric = Annotated[bool | None, typer.Option("--symmetric/--asymmetric", help="Without or with zero points.")]
MethodName = Annotated[str | None, typer.Option("--method", help=f"{', '.join(METHODS)}. Default: descent.")]
Output = Annotated[
    str | None,
    typer.Option("--to", help=f"The container: {', '.join(CONTAINERS)}. Default: what fits."),
]
Acts = Annotated[
    str | None, typer.Option("--activations", help="Of layer inputs: none, int8 or fp8 (ONNX: none or int8).")
]
Calib = Annotated[str | None, typer.Option(help="Text: file, JSONL, folder, stdlib, hub:NAME, self. ONNX: samples.")]
WindowCount = Annotated[int | None, typer.Option(help="Calibration windows. Default 128.")]
Length = Annotated[int | None, typer.Option(help="Tokens in a window. Default 256.")]
Heldout = Annotated[str | None, typer.Option(help="For the verdict; by default a part of --calib kept apart.")]
HeldoutCount = Annotated[int | None, typer.Option("--heldout-windows", help="Held-out windows. Default 8.")]
Simulate = Annotated[bool, typer.Option("--simulate", help="The same as --to float: any format, nothing smaller.")]
Indivisible = Annotated[str | None, typer.Option(help="Inputs not divisible by the group: error, channel or float.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="A TOML recipe; options override it.")]
Reading = Annotated[
    Path | None,
    typer.Option("--recipe", help="ONNX: a recipe whose \\[data] says how samples are read."),  # no markup of Rich's
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        min=0, help="Points of accuracy (language: percent of perplexity) it may lose; else parts stay float."
    ),
]
Bind = Annotated[list[str] | None, typer.Option(help="ONNX: an open input dimension, NAME=SIZE or NAME=any.")]
MaxRam = Annotated[str | None, typer.Option(help="Memory ceiling, e.g. 2GB; the process cannot exceed it.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads. Default: all.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for machines.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="The folder or .onnx file to write; it must not exist.")]


def bound(texts: list[str] | None) -> dict[str, int | str] | None:
    """What the words of --bind mean."""
    return dict(map(_size_of, texts)) if texts else None


def _size_of(text: str) -> tuple[str, int | str]:
    """`NAME=SIZE` or `NAME=any` of --bind."""
    name, _, value = text.rpartition("=")
    if not name or not (value == "any" or (value.isdecimal() and int(value) > 0)):
        fix = "Write for example height=224, or height=any"
        raise RecipeError(f"{text!r} is not NAME=SIZE", where="--bind", fix=fix)
    return name, value if value == "any" else int(value)
