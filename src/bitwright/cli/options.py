"""What the commands on models can be told, and the recipe that it means."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from bitwright.errors import InputError, RecipeError

Model = Annotated[str, typer.Argument(help="A model folder, hub:OWNER/NAME to download one, or an .onnx file.")]
Bits = Annotated[int | None, typer.Option(help="Bits per weight (integer format); 4 unless a recipe says otherwise.")]
FormatName = Annotated[
    str | None, typer.Option("--format", help="A format by name instead of --bits: fp8, nf4, codebook3 ...")
]
Group = Annotated[str | None, typer.Option(help="Weights per scale: a number, 'channel' or 'tensor'. Default 128.")]
Symmetric = Annotated[bool | None, typer.Option("--symmetric/--asymmetric", help="Without or with zero points.")]
MethodName = Annotated[
    str | None, typer.Option("--method", help="rtn, mse, gptq, descent (default), lloyd; ONNX: adaround, lsq.")
]
Acts = Annotated[
    str | None, typer.Option("--activations", help="Of layer inputs: none, int8 or fp8 (ONNX: none or int8).")
]
Calib = Annotated[str | None, typer.Option(help="Text: file, JSONL, folder, stdlib, hub:NAME, self. ONNX: samples.")]
WindowCount = Annotated[int | None, typer.Option(help="Calibration windows. Default 128.")]
Length = Annotated[int | None, typer.Option(help="Tokens in a window. Default 256.")]
Heldout = Annotated[str | None, typer.Option(help="For the verdict; by default a part of --calib kept apart.")]
HeldoutCount = Annotated[int | None, typer.Option("--heldout-windows", help="Held-out windows. Default 8.")]
Simulate = Annotated[bool, typer.Option("--simulate", help="Write decoded float weights: any format, nothing smaller.")]
Indivisible = Annotated[str | None, typer.Option(help="Inputs not divisible by the group: error, channel or float.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="A TOML recipe; options override it.")]
MaxDrop = Annotated[
    float | None, typer.Option(min=0, help="ONNX: points of accuracy it may lose; else layers stay float.")
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


def make_recipe(path: Path | None, given: dict[str, Any]) -> Any:
    """The recipe of a file, or the default, with the options that were given, for a language model."""
    from bitwright.recipe import Recipe

    for key in ("max_drop", "bind"):
        if given.get(key):
            raise RecipeError("is for ONNX networks", where=f"--{key.replace('_', '-')}", fix="Leave it out")
    raw = {"layer": {}, "calibration": {}} | (_read(path, "ONNX networks", ("data", "network")) if path else {})
    raw["layer"] |= layer_options(given) | _given(given, "activations")
    raw["calibration"] |= _given(given, "windows", "length", "heldout", "heldout_windows", calib="source")
    raw |= _given(given, "indivisible")
    if given.get("simulate"):
        raw["output"] = "float"
    return Recipe.read(raw, "options")


def make_network_recipe(path: Path | None, given: dict[str, Any]) -> Any:
    """The same for an ONNX network, whose default is int8 per channel."""
    from bitwright.recipe import Recipe

    for key in ("windows", "length", "heldout_windows", "simulate", "indivisible"):
        if given.get(key):
            where = f"--{key.replace('_', '-')}"
            raise RecipeError("is for language model folders", where=where, fix="Leave it out for an ONNX file")
    raw = {"layer": {}, "data": {}, "network": {}} | (_read(path, "language models", LANGUAGE) if path else {})
    options = {"options": NETWORK_LAYER["options"] | raw["layer"].get("options", {})}
    raw["layer"] = NETWORK_LAYER | raw["layer"] | options | layer_options(given)
    raw["data"] |= _given(given, "heldout", calib="source")
    raw["network"] |= _given(given, "activations", "max_drop")
    if given.get("bind"):
        raw["network"]["bind"] = dict(_size_of(text) for text in given["bind"])
    return Recipe.read(raw, "options")


NETWORK_LAYER: dict[str, Any] = {
    "format": "int8", "group": "channel", "method": "descent", "options": {"damping": 0.001, "sweeps": 4}
}  # fmt: skip
"""How the layers of an ONNX network are stored unless a recipe or option says otherwise."""


LANGUAGE = ("calibration", "output", "indivisible", "untie", "max_float_percent", "max_shard_bytes")
"""What in a recipe is of no use to an ONNX network."""


def _read(path: Path, others: str, foreign: tuple[str, ...]) -> dict[str, Any]:
    """The keys that a recipe file sets; RecipeError for one of `foreign`, which is for `others`."""
    from bitwright.recipe import Recipe

    raw = Recipe.load(path).model_dump(mode="python", exclude_unset=True)
    for key in foreign:
        if key in raw:
            raise RecipeError(f"is for {others}", where=f"{path}: {key}", fix="Leave it out for this model")
    return raw


def _given(given: dict[str, Any], *names: str, **renamed: str) -> dict[str, Any]:
    """The options among `names` that were given, some under another name in the recipe."""
    keys = {name: name for name in names} | renamed
    return {key: given[name] for name, key in keys.items() if given.get(name) is not None}


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
    return layer | _given(given, "symmetric", "method")


def is_network(model: str) -> bool:
    """Whether a MODEL argument is an ONNX file rather than a model folder."""
    return model.lower().endswith(".onnx")


def find_model(text: str) -> Path:
    """The folder a MODEL argument means; `hub:OWNER/NAME` downloads it, and nothing else touches the network."""
    if not text.startswith("hub:"):
        return Path(text)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    wanted = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "LICENSE*", "NOTICE*"]
    try:
        return Path(snapshot_download(text.removeprefix("hub:"), allow_patterns=wanted))
    except (HfHubHTTPError, OSError, ValueError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"cannot be downloaded ({line})", where=text, fix="Check the name and the network") from error
