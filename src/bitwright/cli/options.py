"""What the commands on models can be told, and the recipe that it means."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitwright import methods
from bitwright.errors import RecipeError
from bitwright.files import containers

if TYPE_CHECKING:
    from bitwright.models.kind import Kind
    from bitwright.recipe import Recipe

Model = Annotated[str, typer.Argument(help="A model folder, hub:OWNER/NAME to download one, or an .onnx file.")]
Bits = Annotated[int | None, typer.Option(help="Bits per weight (integer format); 4 unless a recipe says otherwise.")]
FormatName = Annotated[
    str | None, typer.Option("--format", help="A format by name instead of --bits: fp8, nf4, codebook3 ...")
]
Group = Annotated[str | None, typer.Option(help="Weights per scale: a number, 'channel' or 'tensor'. Default 128.")]
Symmetric = Annotated[bool | None, typer.Option("--symmetric/--asymmetric", help="Without or with zero points.")]
MethodName = Annotated[
    str | None, typer.Option("--method", help=f"{', '.join(methods.registry.names())}. Default: descent.")
]
Output = Annotated[
    str | None,
    typer.Option("--to", help=f"The container: {', '.join(containers.registry.names())}. Default: what fits."),
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


def size(text: str | None, where: str = "--max-ram") -> int | None:
    """Bytes from text such as 2GB, 1.5GiB, 800MB; RecipeError for anything else, said of option `where`."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]?)(i?)b?\s*", text.lower())
    try:
        number = float(match[1]) if match else 0.0
    except ValueError:
        number = 0.0
    if match is None or number <= 0:
        raise RecipeError(f"{text!r} is not a size", where=where, fix="Write for example 2GB or 800MB")
    power = " kmgt".index(match[2] or " ")
    return int(number * (1024 if match[3] else 1000) ** power)


COMMON = {"max_drop": "max_drop", "output": "output"}
"""Options for every kind of model, and the recipe's keys that they mean."""


def make_recipe(kind: Kind, path: Path | None, given: dict[str, Any]) -> Recipe:
    """The recipe of a file, or an empty one, with the options that were given; `kind` says what they mean for it.

    RecipeError for an option that is of no use to this kind, and for options that contradict one another.
    """
    from bitwright.recipe import Recipe

    recipe = Recipe.load(path) if path else Recipe()
    raw = recipe.model_dump(mode="python", exclude_unset=True)
    given = dict(given)
    layer = layer_options(given)
    if given.pop("simulate", False):
        if given.get("output") not in (None, "float"):
            raise RecipeError("contradicts --to", where="--simulate", fix="Give one of them")
        given["output"] = "float"
    keys = COMMON | dict(kind.options)
    for name, value in given.items():
        if value is None or value == [] or name in LAYER:
            continue
        if name not in keys:
            where = f"--{name.replace('_', '-')}"
            raise RecipeError("is for another kind of model", where=where, fix=f"Leave it out for a {kind.words.whole}")
        value = dict(map(_size_of, value)) if isinstance(value, list) else value
        *tables, key = keys[name].split(".")
        if tables == ["layer"]:
            layer[key] = value
            continue
        table = raw
        for step in tables:
            table = table.setdefault(step, {})
        table[key] = value
    if layer:
        raw["layer"] = _overlaid(raw.get("layer", {}), layer)
    return Recipe.read(raw, "options")


LAYER = ("bits", "format", "group", "symmetric", "method")
"""Options that make up the `[layer]` table."""


def _overlaid(table: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A `[layer]` table with what was given instead; options of a method that gave way to another go with it."""
    method = given.get("method")
    if method in methods.registry.names() and "options" in table:
        known = methods.registry.get(method).options.model_fields
        table = table | {"options": {key: value for key, value in table["options"].items() if key in known}}
    return table | given


def _size_of(text: str) -> tuple[str, int | str]:
    """`NAME=SIZE` or `NAME=any` of --bind."""
    name, _, value = text.rpartition("=")
    if not name or not (value == "any" or (value.isdecimal() and int(value) > 0)):
        fix = "Write for example height=224, or height=any"
        raise RecipeError(f"{text!r} is not NAME=SIZE", where="--bind", fix=fix)
    return name, value if value == "any" else int(value)


def layer_options(given: dict[str, Any]) -> dict[str, Any]:
    """The `[layer]` table that --bits, --format, --group, --symmetric and --method mean."""
    bits, format_name, group = given["bits"], given["format"], given["group"]
    if bits is not None and format_name is not None:
        raise RecipeError("given together with --format", where="--bits", fix="Give one of them")
    layer: dict[str, Any] = {}
    if bits is not None:
        if not 1 <= bits <= 8:
            raise RecipeError(f"{bits} bits", where="--bits", fix="Choose 1 to 8")
        layer["format"] = f"int{bits}"
    if format_name is not None:
        layer["format"] = format_name
        if format_name.startswith("codebook"):
            layer["method"] = "lloyd"
    if group is not None:
        layer["group"] = int(group) if group.isdigit() else group
    return layer | {key: given[key] for key in ("symmetric", "method") if given.get(key) is not None}
