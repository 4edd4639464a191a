"""The commands on models. Everything heavy is imported inside them, so that `--help` is instant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from bitwright.cli.app import Show, app, guarded
from bitwright.cli.options import (
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
    Output,
    RecipeFile,
    Simulate,
    Symmetric,
    Threads,
    WindowCount,
    bound,
)
from bitwright.engine.libraries import load, silence
from bitwright.errors import BitwrightError, RecipeError
from bitwright.events import Finding, Finished, Row, plain


def prepare_torch(threads: int | None = None) -> None:
    """Load the libraries and set the number of threads."""
    load()
    import torch

    if threads:
        torch.set_num_threads(threads)


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
    output: Output = None,
    indivisible: Indivisible = None,
    max_drop: MaxDrop = None,
    bind: Bind = None,
    recipe: RecipeFile = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Show what `quantize` would do: formats, final bytes, memory, time, runtimes. Nothing runs."""
    given = dict(
        bits=bits, format=format_name, group=group, symmetric=symmetric, method=method, activations=activations,
        calib=calib, windows=windows, length=length, simulate=simulate, output=output,
        indivisible=indivisible, max_drop=max_drop, bind=bound(bind),
    )  # fmt: skip

    def work(show: Show) -> None:
        from bitwright.engine import plan as planning
        from bitwright.engine.options import make_recipe
        from bitwright.models import find, kind_of

        source = find(model)
        kind = kind_of(source)
        made = make_recipe(kind, recipe, given)
        prepare_torch()
        job = planning.make(
            source, kind.beside(source), made, device=device, check_out=False, needs_data=kind.has_data(made)
        )
        show_plan(job, show)

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
    output: Output = None,
    indivisible: Indivisible = None,
    max_drop: MaxDrop = None,
    bind: Bind = None,
    recipe: RecipeFile = None,
    max_ram: MaxRam = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Quantize a model: plan, run, certify, verdict. Interrupted? The same command goes on."""
    given = dict(
        bits=bits, format=format_name, group=group, symmetric=symmetric, method=method, activations=activations,
        calib=calib, windows=windows, length=length, heldout=heldout, heldout_windows=heldout_windows,
        simulate=simulate, output=output, indivisible=indivisible, max_drop=max_drop, bind=bound(bind),
    )  # fmt: skip

    def work(show: Show) -> None:
        from bitwright.engine.options import make_recipe, size
        from bitwright.models import find, kind_of

        source = find(model)
        do_quantize(show, source, out, make_recipe(kind_of(source), recipe, given), size(max_ram), device, threads)

    guarded(as_json, work, resume=True, out=out)


def show_plan(plan: Any, show: Show) -> None:
    """Print the plan on one screen."""
    from bitwright.engine.plan import lines, summary

    if show.json:
        typer.echo(json.dumps({"event": "plan", **plain(summary(plan))}))
        return
    for line in lines(plan):
        show.line(line)


def do_quantize(
    show: Show,
    source: Path,
    out: Path,
    recipe: Any,
    ceiling: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> None:
    """Plan, run, certify and print the verdict."""
    prepare_torch(threads)
    silence()
    from bitwright.engine import plan as planning
    from bitwright.engine.report import certificate_path, verdict_lines
    from bitwright.engine.run import run

    made = planning.make(source, out, recipe, max_ram=ceiling, device=device)
    show_plan(made, show)
    for event in run(made):
        show.event(event)
        if isinstance(event, Finished):
            show.close()
            for line in verdict_lines(event.certificate):
                show.line(line)
            beside = certificate_path(out)
            show.line(f"written: {out}" + ("" if beside.parent == out else f" and {beside.name}"))


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
        from bitwright.models import find

        prepare_torch(threads)
        first, second = find(a), find(b)
        tell_comparison(show, first, second, heldout, recipe, windows, length)
        if weights:
            for event in check_weights(second, first):
                tell_row(show, event)

    guarded(as_json, work)


def tell_comparison(show: Show, a: Path, b: Path, heldout: str, recipe: Path | None, windows: int, length: int) -> None:
    """Compare two models on held-out data and say how far they are apart."""
    from bitwright.engine.measure import measure
    from bitwright.recipe import Recipe

    made = Recipe.load(recipe) if recipe else Recipe()
    text = made.calibration.model_copy(update={"heldout_windows": windows, "length": length})
    result = drain(measure(a, b, heldout, made.model_copy(update={"calibration": text})), show)
    show.close()
    if show.json:
        typer.echo(json.dumps({"event": "comparison", **result.summary()}))
    for line in result.lines():
        show.line(line)


def check_weights(path: Path, against: Path) -> Iterator[Any]:
    """Rows of every matrix in which two models differ."""
    from bitwright.models import kind_of

    return (event for event in kind_of(path).check(path, against) if isinstance(event, Row))


def tell_row(show: Show, row: Any) -> None:
    """The error of one matrix in a line, or an event."""
    show.event(row)
    show.line(f"  {row.sqnr:6.2f} dB SQNR  {row.mse:.3e} MSE  {row.format:<16} {row.name}")


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
        from bitwright.engine.check import check as look
        from bitwright.models import find

        prepare_torch()
        path, original = find(folder), find(against) if against else None
        for event in look(path, original):
            if isinstance(event, Row):
                tell_row(show, event)
            else:
                show.event(event)
            if isinstance(event, Finding) and not event.good:
                wrong.append(event.detail)
        if original is not None and heldout is not None and not wrong:
            tell_comparison(show, original, path, heldout, recipe, windows, 256)
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
        from bitwright.models import kind_of

        if out.exists():
            if not any(out.glob("*certificate.json")):
                raise RecipeError("is not an earlier demo's output", where=str(out), fix="Choose another -o")
            shutil.rmtree(out)
        try:
            model, made = demos.make(task, out / "data", bits)
            result = out if kind_of(model).holds == "tensors" else out / f"{model.parent.name}.onnx"
            do_quantize(show, model, result, made)
        except BaseException:
            shutil.rmtree(out, ignore_errors=True)  # half a demo would bar the way to the next
            raise
        page = out / "report.html"
        page.write_text(reports.to_html([reports.load(result)]), "utf-8")
        show.line(f"report:  {page}")

    guarded(as_json, work, out=out)
