"""The command line. Everything heavy is imported inside the commands, so that `--help` is instant."""

from __future__ import annotations

import difflib
import gc
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache, partialmethod
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bitwright import __version__
from bitwright.errors import BitwrightError, InputError, Interrupted, RecipeError

UsageError: Any = typer.BadParameter.__base__
"""What typer raises for a command line that it cannot read; it exports only this child of it."""


class _Commands(TyperGroup):
    """A group that answers a mistyped command with the nearest one, and any other in one line."""

    def main(self, *args: Any, **extra: Any) -> Any:
        if not extra.get("standalone_mode", True):
            return super().main(*args, **extra)
        extra["standalone_mode"] = False  # errors come here instead of being drawn in a box
        try:
            code = super().main(*args, **extra)
        except UsageError as error:
            if not error.format_message():  # no arguments at all: the help was shown
                sys.exit(error.exit_code)
            words = args[0] if args else extra.get("args")
            as_json = "--json" in (sys.argv[1:] if words is None else words)
            code = _report(as_json, _usage(error), "RecipeError", error.exit_code)
        except typer.Abort:
            code = 1
        sys.exit(code if isinstance(code, int) else 0)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1, 0.4)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make neural networks small, and say honestly what every bit cost.",
)

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


def size(text: str | None) -> int | None:
    """Bytes from text such as 2GB, 1.5GiB, 800MB; RecipeError for anything else."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]?)(i?)b?\s*", text.lower())
    try:
        number = float(match[1]) if match else 0.0
    except ValueError:
        number = 0.0
    if match is None or number <= 0:
        raise RecipeError(f"{text!r} is not a size", where="--max-ram", fix="Write for example 2GB or 800MB")
    power = " kmgt".index(match[2] or " ")
    return int(number * (1024 if match[3] else 1000) ** power)


def make_recipe(path: Path | None, given: dict[str, Any]) -> Any:
    """The recipe of a file, or the default, with the options that were given, for a language model."""
    from bitwright.engine.recipe import Recipe

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
    from bitwright.engine.recipe import Recipe

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
    from bitwright.engine.recipe import Recipe

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


class Show:
    """Prints events: JSON lines, a progress bar with ETA on a terminal, or plain lines elsewhere."""

    def __init__(self, as_json: bool) -> None:
        self.json = as_json
        self._bar: Any = None
        self._task: Any = None
        self._phase = ""
        self._quarter = -1

    def line(self, text: str) -> None:
        """One line for people (nothing in JSON mode)."""
        if self.json:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            typer.echo(text)

    def event(self, event: Any) -> None:
        """Show one event."""
        from bitwright.engine.check import Finding
        from bitwright.engine.events import Note, Progress, Row, Started

        if self.json:
            typer.echo(json.dumps(event.json()))
            return
        if isinstance(event, Started):
            self.close()
            self._phase, self._quarter = event.phase, -1
            resumed = f" (resuming: {event.resumed} tensors are already written)" if event.resumed else ""
            self.line(f"{event.phase}: {event.detail}{resumed}")
        elif isinstance(event, Note):
            self.line(f"  {event.text}")
        elif isinstance(event, Finding):
            self.line(f"  {'ok  ' if event.good else 'BAD '} {event.what}: {event.detail}")
        elif isinstance(event, Row) and event.notes:
            self.line(f"  {event.name}: {'; '.join(event.notes)}")
        elif isinstance(event, Progress):
            self._progress(event)

    def _progress(self, event: Any) -> None:
        share = event.done / max(event.total, 1)
        if not sys.stdout.isatty():
            if int(share * 4) > self._quarter:
                self._quarter = int(share * 4)
                typer.echo(f"  {event.phase} {share:4.0%}  {event.label}")
            return
        if self._bar is None:
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("  {task.fields[phase]:<9}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[label]}", style="dim"),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=1.0, phase=event.phase, label="")
        self._bar.update(self._task, completed=share, phase=event.phase, label=event.label[-48:])

    def close(self) -> None:
        """Take the progress bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


EXTRA = ("onnx", "onnxruntime", "PIL", "sklearn")
"""Modules that the optional extra `onnx` installs."""


def guarded(as_json: bool, work: Callable[[Show], None], resume: bool = False, out: Path | None = None) -> None:
    """Run a command's work; any deliberate error becomes one line and its exit code, Ctrl-C a clean stop.

    `out` is where the command writes: what a full disk is reported for.
    """
    show = Show(as_json)
    try:
        work(show)
    except BitwrightError as error:
        show.close()
        _fail(as_json, str(error), type(error).__name__, error.exit_code)
    except KeyboardInterrupt:
        show.close()
        text = "stopped; finished tensors are kept, the same command goes on" if resume else "stopped"
        _fail(as_json, text, "Interrupted", Interrupted.exit_code)
    except OSError as error:
        show.close()
        where = error.filename or out or "file system"
        fix = "Check the path, its permissions and the free disk space; finished work is kept"
        _fail(as_json, f"{where}: {error.strerror or error}. {fix}", "ResourceError", 3)
    except MemoryError:
        show.close()
        _fail(as_json, "out of memory under the ceiling. Raise --max-ram or use --method rtn", "ResourceError", 3)
    except ModuleNotFoundError as error:
        show.close()
        if error.name is None or error.name.split(".")[0] not in EXTRA:
            raise
        fix = "This command needs the extra `onnx`: pip install 'bitwright[onnx]'"
        _fail(as_json, f"{error.name}: not installed. {fix}", "ResourceError", 3)
    except RuntimeError as error:
        show.close()
        if "can't allocate memory" not in str(error) and "out of memory" not in str(error).lower():
            raise
        _fail(as_json, "out of memory under the ceiling. Raise --max-ram or use --method rtn", "ResourceError", 3)
    finally:
        show.close()


def _fail(as_json: bool, text: str, kind: str, code: int) -> None:
    raise typer.Exit(_report(as_json, text, kind, code))


def _report(as_json: bool, text: str, kind: str, code: int) -> int:
    """Print one line of error, and one event for machines; returns `code`."""
    text = " ".join(text.split())
    if as_json:
        typer.echo(json.dumps({"event": "error", "kind": kind, "text": text}))
    typer.echo(f"bitwright: {text}", err=True)
    return code


def _usage(error: Any) -> str:
    """`command: what is wrong. fix` for a command line that cannot be read."""
    words = error.ctx.command_path.split()[1:] if error.ctx else []
    text = error.format_message().rstrip(".")
    near = getattr(error, "possibilities", None)
    if near:
        text = f"No such option: {error.option_name}. Did you mean {' or '.join(near)}?"
    text += "" if text.endswith("?") else "."
    return f"{' '.join(words) or 'command line'}: {text} See {' '.join(['bitwright', *words])} --help"


def _version(value: bool) -> None:
    if value:
        typer.echo(f"bitwright {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Make neural networks small, and say honestly what every bit cost."""


@cache
def import_libraries() -> None:
    """Import torch and transformers, in two thirds of the time it takes by itself."""
    # Nothing here is compiled, but compressed-tensors marks a function for it: torch would import its compiler.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    # NumPy only visits columns one by one; more threads would wait for one another most of the time.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()  # imports leave no garbage, and looking for it among so many new objects takes over a second
    import transformers.modeling_utils  # noqa: F401

    gc.freeze()
    gc.enable()


def prepare_torch(threads: int | None) -> None:
    """Set the number of threads and silence the libraries' own progress bars and warnings."""
    import_libraries()
    import torch
    from transformers.utils import logging

    if threads:
        torch.set_num_threads(threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()


@cache
def silence_tqdm() -> None:
    """Turn off the bars that compressed-tensors draws on stderr while the output is loaded; it has no switch."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)


def show_plan(plan: Any, show: Show) -> None:
    """Print the plan on one screen."""
    from collections import Counter

    from bitwright.engine.plan import describe

    if show.json:
        typer.echo(json.dumps({"event": "plan", **plan.summary()}))
        return
    kinds = Counter((describe(i.scheme), i.layer.method) for i in plan.items.values())
    show.line(f"plan: {plan.source} -> {plan.out}")
    for (kind, method), count in kinds.items():
        show.line(f"  {count} matrices as {kind} by {method}")
    kept = sum(e.size for e in plan.copies)
    show.line(f"  {len(plan.copies)} tensors kept as they are ({kept / 1e6:,.1f} MB: embedding, norms, head)")
    final, source = plan.layout.total_bytes, plan.source_bytes
    show.line(
        f"  {source / 1e6:,.1f} MB -> {final / 1e6:,.1f} MB ({final / source:.0%}), "
        f"{plan.stored_bits:.3f} stored bits per quantized weight"
    )
    show.line(
        f"  memory: about {plan.peak_memory() / 1e6:,.0f} MB; time: about {plan.seconds():,.0f} s on this machine"
    )
    show.line(f"  loads in: {'; '.join(plan.runtimes())}")
    for note in plan.notes[:8]:
        show.line(f"  note: {note}")


@app.command()
def plan(
    model: Model,
    bits: Bits = None,
    format_name: FormatName = None,
    group: Group = None,
    symmetric: Symmetric = None,
    method: MethodName = None,
    activations: Acts = None,
    calib: Calib = None,
    windows: WindowCount = None,
    length: Length = None,
    simulate: Simulate = False,
    indivisible: Indivisible = None,
    bind: Bind = None,
    recipe: RecipeFile = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Show what `quantize` would do: formats, final bytes, memory, time, runtimes. Nothing runs."""
    given = dict(
        bits=bits, format=format_name, group=group, symmetric=symmetric, method=method, activations=activations,
        calib=calib, windows=windows, length=length, simulate=simulate, indivisible=indivisible, bind=bind,
    )  # fmt: skip

    def work(show: Show) -> None:
        if is_network(model):
            from bitwright.engine.integer import plan as networks

            network_recipe, source = make_network_recipe(recipe, given), Path(model)
            out = source.with_name(f"{source.stem}-int.onnx")
            known = network_recipe.data.source is not None
            show_network_plan(networks.make(source, out, network_recipe, check_out=False, needs_data=known), show)
            return
        made = make_recipe(recipe, given)
        prepare_torch(None)
        from bitwright.engine import plan as planning

        source = find_model(model)
        show_plan(planning.make(source, Path(f"{source.name}-small"), made, device=device, check_out=False), show)

    guarded(as_json, work)


@app.command()
def quantize(
    model: Model,
    out: Out,
    bits: Bits = None,
    format_name: FormatName = None,
    group: Group = None,
    symmetric: Symmetric = None,
    method: MethodName = None,
    activations: Acts = None,
    calib: Calib = None,
    windows: WindowCount = None,
    length: Length = None,
    heldout: Heldout = None,
    heldout_windows: HeldoutCount = None,
    simulate: Simulate = False,
    indivisible: Indivisible = None,
    max_drop: MaxDrop = None,
    bind: Bind = None,
    recipe: RecipeFile = None,
    max_ram: MaxRam = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Quantize a model: plan, run, certify, verdict. Interrupted? The same command goes on (ONNX: starts again)."""
    given = dict(
        bits=bits, format=format_name, group=group, symmetric=symmetric, method=method, activations=activations,
        calib=calib, windows=windows, length=length, heldout=heldout, heldout_windows=heldout_windows,
        simulate=simulate, indivisible=indivisible, max_drop=max_drop, bind=bind,
    )  # fmt: skip

    def work(show: Show) -> None:
        ceiling = size(max_ram)
        if is_network(model):
            do_network(show, Path(model), out, make_network_recipe(recipe, given), ceiling, device, threads)
        else:
            do_quantize(show, find_model(model), out, make_recipe(recipe, given), ceiling, device, threads)

    guarded(as_json, work, resume=not is_network(model), out=out)


def do_network(
    show: Show,
    source: Path,
    out: Path,
    recipe: Any,
    ceiling: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> None:
    """Plan, run, certify and print the verdict for an ONNX file."""
    from bitwright.engine import machine
    from bitwright.engine.events import Finished
    from bitwright.engine.integer import plan as networks
    from bitwright.engine.integer.run import run
    from bitwright.engine.report import certificate_path, verdict_lines

    if device != "cpu":
        raise RecipeError("ONNX networks are quantized on the CPU", where="--device", fix="Leave it out")
    if threads:
        import torch

        torch.set_num_threads(threads)
    made = networks.make(source, out, recipe)
    machine.enforce(ceiling)
    show_network_plan(made, show)
    for event in run(made):
        show.event(event)
        if isinstance(event, Finished):
            show.close()
            for line in verdict_lines(event.certificate):
                show.line(line)
            show.line(f"written: {out} and {certificate_path(out).name}")


def show_network_plan(plan: Any, show: Show) -> None:
    """Print the plan of an ONNX network on one screen."""
    if show.json:
        typer.echo(json.dumps({"event": "plan", **plan.summary()}))
        return
    show.line(f"plan: {plan.source} -> {plan.out}")
    for line in plan.lines():
        show.line(line)


def do_quantize(
    show: Show,
    source: Path,
    out: Path,
    recipe: Any,
    ceiling: int | None,
    device: str = "cpu",
    threads: int | None = None,
) -> None:
    """Plan, run, certify and print the verdict."""
    prepare_torch(threads)
    silence_tqdm()
    from bitwright.engine import plan as planning
    from bitwright.engine.events import Finished
    from bitwright.engine.report import verdict_lines
    from bitwright.engine.run import run
    from bitwright.engine.text import prepare

    made = planning.make(source, out, recipe, max_ram=ceiling, device=device)
    show_plan(made, show)
    text = drain(prepare(made), show)
    for event in run(made, text):
        show.event(event)
        if isinstance(event, Finished):
            show.close()
            for line in verdict_lines(event.certificate):
                show.line(line)
            show.line(f"written: {out}")


def drain(events: Iterator[Any], show: Show) -> Any:
    """Show a generator's events and return its value."""
    while True:
        try:
            show.event(next(events))
        except StopIteration as end:
            return end.value


@app.command()
def measure(
    a: Annotated[str, typer.Argument(help="The float model's folder, or .onnx file.")],
    b: Annotated[str, typer.Argument(help="The other model's, float or quantized.")],
    heldout: Annotated[str, typer.Option(help="Text to compare on; or samples, for ONNX files.")] = "stdlib",
    recipe: Annotated[Path | None, typer.Option(help="ONNX: a recipe whose [data] says how samples are read.")] = None,
    windows: Annotated[int, typer.Option(min=2, help="Windows of held-out text.")] = 64,
    length: Annotated[int, typer.Option(min=8, help="Tokens in a window.")] = 256,
    weights: Annotated[bool, typer.Option("--weights", help="Also list the error of every matrix.")] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Compare two models on the same text or samples: KL, agreement, perplexity, accuracy, with intervals."""

    def work(show: Show) -> None:
        if is_network(a):
            result = measure_networks(Path(a), Path(b), heldout, recipe)
            if as_json:
                typer.echo(json.dumps({"event": "comparison", **result.summary()}))
            for line in result.lines():
                show.line(line)
            return
        prepare_torch(threads)
        from bitwright.engine.check import compare_weights
        from bitwright.engine.events import Row
        from bitwright.engine.measure import measure_folders
        from bitwright.engine.text import read_heldout, require_fit
        from bitwright.files.folder import open_checkpoint

        first, second = find_model(a), find_model(b)
        words = read_heldout(first, heldout, windows, length)
        require_fit(second, words.ids)
        result = drain(measure_folders(first, second, words.ids), show)
        show.close()
        if as_json:
            typer.echo(json.dumps({"event": "comparison", **result.summary()}))
        for line in result.lines():
            show.line(line)
        if not weights:
            return
        for event in compare_weights(open_checkpoint(first), open_checkpoint(second)):
            show.event(event)
            if isinstance(event, Row):
                show.line(f"  {event.sqnr:6.2f} dB SQNR  {event.mse:.3e} MSE  {event.format:<16} {event.name}")

    guarded(as_json, work)


def measure_networks(a: Path, b: Path, heldout: str, recipe: Path | None) -> Any:
    """The verdict on two ONNX files over the samples of `heldout`, read as the recipe's [data] says."""
    from bitwright.engine.integer.verdict import measure as compare
    from bitwright.engine.recipe import Recipe
    from bitwright.files.onnx import read
    from bitwright.models.network.graph import inputs_of
    from bitwright.models.samples.open import open_samples

    if heldout == "stdlib":
        raise RecipeError(
            "ONNX networks are compared on samples", where="--heldout", fix="Give a folder or file of them"
        )
    made = Recipe.load(recipe) if recipe else Recipe()
    read(a)
    return compare(open_samples(heldout, inputs_of(read(b)), made.data), made.data, a, b)


@app.command()
def check(
    folder: Annotated[str, typer.Argument(help="A quantized folder or .onnx file, ours or anyone's.")],
    against: Annotated[str | None, typer.Option(help="The float model it was made from: also show the loss.")] = None,
    heldout: Annotated[str | None, typer.Option(help="With --against: text or samples to measure on.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="ONNX: a recipe whose [data] says how samples are read.")] = None,
    windows: Annotated[int, typer.Option(min=2, help="Windows of held-out text.")] = 16,
    as_json: Json = False,
) -> None:
    """Is a quantized model sound? Files, shapes, finite scales, coverage, two decoders; exit code 1 where not."""
    wrong: list[str] = []

    def work(show: Show) -> None:
        prepare_torch(None)
        from bitwright.engine.check import Finding
        from bitwright.engine.check import check as look
        from bitwright.engine.events import Row
        from bitwright.engine.measure import measure_folders
        from bitwright.engine.text import read_heldout

        if is_network(folder):
            from bitwright.engine.integer.check import check as look_at

            path, original = Path(folder), Path(against) if against else None
            events = look_at(path, original)
        else:
            path, original = find_model(folder), find_model(against) if against else None
            events = look(path, original)
        for event in events:
            show.event(event)
            if isinstance(event, Row):
                show.line(f"  {event.sqnr:6.2f} dB SQNR  {event.format:<16} {event.name}")
            if isinstance(event, Finding) and not event.good:
                wrong.append(event.detail)
        if original is not None and heldout is not None and not wrong:
            if is_network(folder):
                result = measure_networks(original, path, heldout, recipe)
            else:
                result = drain(measure_folders(original, path, read_heldout(original, heldout, windows, 256).ids), show)
            show.close()
            if as_json:
                typer.echo(json.dumps({"event": "comparison", **result.summary()}))
            for line in result.lines():
                show.line(line)
        show.close()
        show.line("not sound" if wrong else "sound")
        if wrong:
            cause = f"not sound: {wrong[0].removeprefix(f'{path}: ')}"
            raise BitwrightError(cause, where=str(path), fix="Do not use it: write or download it again")

    guarded(as_json, work)


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders written by `quantize`; several give size against quality.")
    ],
    kind: Annotated[str, typer.Option("--format", help="md, json or html.")] = "md",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A file to write instead of printing.")] = None,
) -> None:
    """A report from certificates: Markdown, JSON, or one self-contained HTML page."""

    def work(show: Show) -> None:
        from bitwright.engine import report as reports

        write = {"md": reports.to_markdown, "json": reports.to_json, "html": reports.to_html}
        if kind not in write:
            raise RecipeError(f"{kind!r} is not a report", where="--format", fix="Choose md, json or html")
        text = write[kind]([reports.load(folder) for folder in folders])
        if out is None:
            typer.echo(text)
            return
        if out.exists():
            raise RecipeError("the output exists", where=str(out), fix="Choose another -o, or remove it")
        out.write_text(text, "utf-8")
        show.line(f"written: {out}")

    guarded(False, work, out=out)


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Where the result goes; an earlier demo there is replaced.")
    ] = Path("demo-output"),
    task: Annotated[str, typer.Option(help="language, vision (digits) or speech (spoken words).")] = "language",
    bits: Annotated[
        int | None, typer.Option(min=2, max=8, help="Bits per weight; 4, or 8 for vision and speech.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Quantize a bundled model, offline, with data your machine has: its Python, scikit-learn, its own voice."""

    def work(show: Show) -> None:
        import shutil

        from bitwright.engine import demo as demos
        from bitwright.engine import report as reports

        if task not in ("language", *demos.NETWORKS):
            raise RecipeError(f"{task!r} is not a task", where="--task", fix="Choose language, vision or speech")
        if out.exists():
            if not any(out.glob("*certificate.json")):
                raise RecipeError("is not an earlier demo's output", where=str(out), fix="Choose another -o")
            shutil.rmtree(out)
        if task == "language":
            model, made = demos.language(bits or 4)
            do_quantize(show, model, out, made, None)
            result = out
        else:
            result = out / f"{demos.NETWORKS[task]}.onnx"
            try:
                model, made = demos.network(task, out / "data", NETWORK_LAYER | {"format": f"int{bits or 8}"})
                do_network(show, model, result, made)
            except BaseException:
                shutil.rmtree(out, ignore_errors=True)  # half a demo would bar the way to the next
                raise
        page = out / "report.html"
        page.write_text(reports.to_html([reports.load(result)]), "utf-8")
        show.line(f"report:  {page}")

    guarded(as_json, work, resume=task == "language", out=out)


if __name__ == "__main__":
    app()
