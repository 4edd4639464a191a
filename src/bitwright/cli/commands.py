"""The commands on models. Everything heavy is imported inside them, so that `--help` is instant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from bitwright.cli.app import Show, app, guarded
from bitwright.cli.options import (
    NETWORK_LAYER,
    Acts,
    Bind,
    Bits,
    Calib,
    Device,
    FormatName,
    Group,
    Heldout,
    HeldoutCount,
    Indivisible,
    Json,
    Length,
    MaxDrop,
    MaxRam,
    MethodName,
    Model,
    Out,
    RecipeFile,
    Simulate,
    Symmetric,
    Threads,
    WindowCount,
    find_model,
    is_network,
    make_network_recipe,
    make_recipe,
    size,
)
from bitwright.engine.libraries import load, silence
from bitwright.errors import BitwrightError, RecipeError


def prepare_torch(threads: int | None) -> None:
    """Load the libraries and set the number of threads."""
    load()
    import torch

    if threads:
        torch.set_num_threads(threads)


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
    from bitwright import machine
    from bitwright.engine.integer import plan as networks
    from bitwright.engine.integer.run import run
    from bitwright.engine.report import certificate_path, verdict_lines
    from bitwright.events import Finished

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
    silence()
    from bitwright.engine import plan as planning
    from bitwright.engine.report import verdict_lines
    from bitwright.engine.run import run
    from bitwright.engine.text import prepare
    from bitwright.events import Finished

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
        from bitwright.engine.measure import measure_folders
        from bitwright.engine.text import read_heldout, require_fit
        from bitwright.events import Row
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
    from bitwright.files.onnx import read
    from bitwright.models.network.graph import inputs_of
    from bitwright.models.samples.open import open_samples
    from bitwright.recipe import Recipe

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
        from bitwright.engine.measure import measure_folders
        from bitwright.engine.text import read_heldout
        from bitwright.events import Row

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
