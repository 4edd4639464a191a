"""The commands on models. Heavy libraries are imported inside them, so that `--help` is instant."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from bitwright.cli.app import Show, app, guarded
from bitwright.cli.options import (
    Acts,
    Bind,
    Bits,
    Bpw,
    Calib,
    CopyCode,
    Device,
    Effort,
    Embedding,
    FormatName,
    Group,
    Heldout,
    HeldoutCount,
    ImatrixFile,
    Indivisible,
    Json,
    KvCache,
    Length,
    MaxDrop,
    MaxKl,
    MaxRam,
    MaxShardSize,
    MethodName,
    MixName,
    Model,
    Out,
    Output,
    Reading,
    RecipeFile,
    Simulate,
    Size,
    Symmetric,
    Threads,
    WindowCount,
    bound,
)
from bitwright.errors import BitwrightError, RecipeError
from bitwright.events import Finished, Note, Row
from bitwright.files.plain import require_new


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
    embedding: Embedding = None,
    kv_cache: KvCache = None,
    type: MixName = None,
    size: Size = None,
    bpw: Bpw = None,
    max_kl: MaxKl = None,
    max_shard_size: MaxShardSize = None,
    imatrix: ImatrixFile = None,
    effort: Effort = None,
    max_drop: MaxDrop = None,
    bind: Bind = None,
    copy_code: CopyCode = False,
    recipe: RecipeFile = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Show what `quantize` would do: formats, final size, memory, time, runtimes. Nothing is quantized."""
    given: dict[str, Any] = dict(
        bits=bits, format=format_name, group=group, symmetric=symmetric, method=method, activations=activations,
        calib=calib, windows=windows, length=length, simulate=simulate, output=output,
        indivisible=indivisible, embedding=embedding, kv_cache=kv_cache, type=type, imatrix=imatrix, size=size, bpw=bpw,
        max_kl=max_kl, max_shard_size=max_shard_size, effort=effort, max_drop=max_drop, copy_code=copy_code or None,
    )  # fmt: skip

    def work(show: Show) -> None:
        from bitwright import library

        show_plan(library.plan(found(show, model), recipe=recipe, device=device, **given | {"bind": bound(bind)}), show)

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
    embedding: Embedding = None,
    kv_cache: KvCache = None,
    type: MixName = None,
    size: Size = None,
    bpw: Bpw = None,
    max_kl: MaxKl = None,
    max_shard_size: MaxShardSize = None,
    imatrix: ImatrixFile = None,
    effort: Effort = None,
    max_drop: MaxDrop = None,
    bind: Bind = None,
    copy_code: CopyCode = False,
    recipe: RecipeFile = None,
    max_ram: MaxRam = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Quantize a model: plan, run, certify, verdict. If interrupted, the same command continues."""
    given: dict[str, Any] = dict(
        bits=bits, format=format_name, group=group, symmetric=symmetric, method=method, activations=activations,
        calib=calib, windows=windows, length=length, heldout=heldout, heldout_windows=heldout_windows,
        simulate=simulate, output=output, indivisible=indivisible, embedding=embedding, kv_cache=kv_cache,
        type=type, imatrix=imatrix, size=size, bpw=bpw, max_kl=max_kl, max_shard_size=max_shard_size, effort=effort,
        max_drop=max_drop, copy_code=copy_code or None,
    )  # fmt: skip

    def work(show: Show) -> None:
        from bitwright import library

        told = given | {"bind": bound(bind)}
        job = library.plan(
            found(show, model), out, recipe=recipe, max_ram=max_ram, device=device, threads=threads, **told
        )
        do_quantize(show, job)

    guarded(as_json, work, resume=True, out=out)


@app.command("imatrix")
def make_imatrix(
    model: Model,
    calib: Calib,
    out: Annotated[Path, typer.Option("-o", "--out", help="The .gguf file to write; it must not exist.")],
    windows: WindowCount = None,
    length: Length = None,
    max_ram: MaxRam = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Write an imatrix of calibration text for llama.cpp: the mean square of what each column is multiplied by."""

    def work(show: Show) -> None:
        from bitwright import library

        written = library.imatrix(
            found(show, model), out, calib=calib or [], windows=windows, length=length, max_ram=max_ram, device=device,
            threads=threads, watch=show.event,
        )  # fmt: skip
        show.close()
        if show.json:
            typer.echo(json.dumps({"event": "imatrix", **written}))
        size = f"{written['entries']} tensors, {written['chunks']} chunks of {written['chunk_size']} tokens"
        show.line(f"written: {out} ({size})")

    guarded(as_json, work, out=out)


def found(show: Show, model: str) -> Path:
    """The path that a MODEL argument means; what is downloaded for it is said."""
    from bitwright.models import find

    return find(model, lambda line: show.event(Note(line)))


def show_plan(job: Any, show: Show) -> None:
    """Print a plan on one screen."""
    if show.json:
        typer.echo(json.dumps({"event": "plan", **job.summary}))
    show.line(str(job))


def do_quantize(show: Show, job: Any) -> None:
    """Show the plan, run it, and print the verdict."""
    from bitwright.engine.report import verdict_lines
    from bitwright.models import kind_of

    show_plan(job, show)
    for event in job.run():
        show.event(event)
        if isinstance(event, Finished):
            show.close()
            for line in verdict_lines(event.certificate):
                show.line(line)
            out = Path(event.out)
            kind = kind_of(out)
            beside = [path.name for path in (kind.certificate(out), kind.card(out)) if path.parent != out]
            show.line(" and ".join([f"written: {out}", ", ".join(beside)] if beside else [f"written: {out}"]))


@app.command()
def measure(
    a: Annotated[str, typer.Argument(help="The float model: a folder or .onnx file.")],
    b: Annotated[str, typer.Argument(help="The other model, float or quantized: a folder or .onnx file.")],
    heldout: Annotated[
        list[str] | None,
        typer.Option(help="Held-out text (ONNX: samples) to compare on. Repeatable. Default: stdlib, Python's own."),
    ] = None,
    recipe: Reading = None,
    windows: Annotated[int, typer.Option(min=2, help="Number of windows of held-out text.")] = 64,
    length: Annotated[int, typer.Option(min=8, help="Tokens per window.")] = 256,
    weights: Annotated[bool, typer.Option("--weights", help="Also show the error of every weight matrix.")] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Compare two models on the same text or samples: KL, agreement, perplexity or accuracy, with 95 % intervals."""

    def work(show: Show) -> None:
        first, second = found(show, a), found(show, b)
        tell_comparisons(show, first, second, heldout or ["stdlib"], recipe, windows, length, threads)
        if weights:
            from bitwright import library

            for row in library.check(second, first, watch=False).rows:
                tell_row(show, row)

    guarded(as_json, work)


def tell_comparisons(
    show: Show,
    a: Path,
    b: Path,
    heldout: list[str],
    recipe: Path | None,
    windows: int,
    length: int,
    threads: int | None,
) -> None:
    """Compare two models on held-out data, source by source, and print how far apart they are."""
    from bitwright import library
    from bitwright.words import titles

    for source, name in zip(heldout, titles(heldout), strict=True):
        result = library.measure(
            a, b, source, windows=windows, length=length, recipe=recipe, threads=threads, watch=show.event
        )
        show.close()
        if show.json:
            typer.echo(json.dumps({"event": "comparison", "source": name, **result.summary}))
        show.line(f"on {name}:\n{result}" if len(heldout) > 1 else str(result))


def tell_row(show: Show, row: Any) -> None:
    """The error and the precision of one matrix, as a line or as an event."""
    show.event(row)
    from bitwright.words import entropy, levels

    told = levels(row.levels, row.levels_used)
    stored = f"{row.stored_bits / (row.rows * row.columns):.3f} bits"
    used = f"{told} levels, {entropy(row.entropy)} of {stored}" if told else stored
    show.line(f"  {row.sqnr:6.2f} dB SQNR  {row.mse:.3e} MSE  {used:<36} {row.format:<16} {row.name}")


@app.command()
def check(
    folder: Annotated[
        str, typer.Argument(help="A quantized model folder, .onnx or .gguf file, from Bitwright or any other tool.")
    ],
    against: Annotated[
        str | None, typer.Option(help="The float model it was made from: also show the loss of quality.")
    ] = None,
    heldout: Annotated[
        list[str] | None, typer.Option(help="With --against: text or samples to measure on. Repeatable.")
    ] = None,
    recipe: Reading = None,
    windows: Annotated[
        int | None, typer.Option(min=2, help="With --heldout: number of windows of text. Default 16.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a quantized model: files, shapes, finite scales, coverage, two decoders. Exit code 1 if it is not sound.

    A file that is not known here, such as GGUF, is described and checked as far as can be, without a verdict.
    """

    def work(show: Show) -> None:
        from bitwright import library

        if heldout and against is None:
            raise RecipeError("needs a float model to compare with", where="--heldout", fix="Give --against FLOAT")
        for name, value in (("--recipe", recipe), ("--windows", windows)):
            if value is not None and not heldout:
                raise RecipeError("says how held-out data are read", where=name, fix="Give --heldout DATA too")
        model, source = found(show, folder), None if against is None else found(show, against)
        checked = library.check(
            model, source, watch=lambda event: tell_row(show, event) if isinstance(event, Row) else show.event(event)
        )
        wrong = [finding.detail for finding in checked.findings if finding.good is False]
        if source is not None and heldout and not wrong:
            tell_comparisons(show, source, model, heldout, recipe, windows or 16, 256, None)
        show.close()
        show.line(checked.words)
        if wrong:
            cause = f"not sound: {wrong[0].removeprefix(f'{folder}: ')}"
            raise BitwrightError(cause, where=folder, fix="Do not use it: write or download it again")

    guarded(as_json, work)


@app.command()
def run(
    model: Annotated[
        str, typer.Argument(help="A model folder, .gguf or .onnx file, float or quantized; or hub:OWNER/NAME.")
    ],
    prompt: Annotated[
        str | None, typer.Option(help="Language models: the text to go on from. Default: a sentence of ours.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(help="Language models: tokens to generate in each turn. Default 32.")
    ] = None,
    samples: Annotated[
        str | None,
        typer.Option(help="ONNX: samples to answer the first of, .npz or as --calib. Default: zeros."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="The float model it was made from: both run, turn by turn.")
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Run a model in llama.cpp, transformers or ONNX Runtime: its speed, peak memory and text."""

    def work(show: Show) -> None:
        from bitwright import library

        source = None if against is None else found(show, against)
        result = library.run(
            found(show, model), source, prompt=prompt, tokens=tokens, samples=samples, threads=threads,
            watch=lambda event: None if isinstance(event, Note) and not show.json else show.event(event),
        )  # fmt: skip
        show.close()
        if show.json:
            typer.echo(json.dumps({"event": "speed", **result.summary}))
        show.line(str(result))

    guarded(as_json, work)


@app.command()
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Outputs of `quantize`: folders or .onnx files. Several are compared by size and quality."),
    ],
    kind: Annotated[str | None, typer.Option("--format", help="md, json or html. Default: as -o ends, or md.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A file to write instead of printing.")] = None,
) -> None:
    """Make a report from certificates: Markdown, JSON, or one self-contained HTML page."""

    def work(show: Show) -> None:
        from bitwright import library

        kinds = {"md": "markdown", "json": "json", "html": "html"}
        chosen = written_as(kind, out, list(kinds))
        text = getattr(library.report(*folders), kinds[chosen])
        if out is None:
            typer.echo(text)
            return
        out.write_text(text, "utf-8")
        show.line(f"written: {out}")

    guarded(False, work, out=out)


def written_as(kind: str | None, out: Path | None, kinds: list[str]) -> str:
    """The kind of text to write: the one asked for, or as the file's name ends; RecipeError where the two differ."""
    if kind is not None and kind not in kinds:
        raise RecipeError(
            f"{kind!r} is not written", where="--format", fix=f"Choose {', '.join(kinds[:-1])} or {kinds[-1]}"
        )
    if out is None:
        return kind or kinds[0]
    require_new(out)
    ending = out.suffix.lower().removeprefix(".")
    if kind is not None and ending in kinds and ending != kind:
        raise RecipeError(f"contradicts -o {out.name}", where="--format", fix="Give one of them")
    return kind or (ending if ending in kinds else kinds[0])


@app.command()
def push(
    out: Annotated[Path, typer.Argument(help="An output of `quantize`: a folder or an .onnx file.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository; made where it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch; made where it is not there. Default: main.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before anything is uploaded.")] = False,
    endpoint: Annotated[
        str | None, typer.Option(help="Address of another hub. Default: https://huggingface.co, or HF_ENDPOINT.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Upload an output to the Hugging Face hub, after a fresh check, as one commit. It asks before it sends."""

    def work(show: Show) -> None:
        from bitwright import library

        if not yes and (as_json or not sys.stdin.isatty()):
            raise RecipeError("nobody is there to be asked", where="push", fix="Give --yes to upload without asking")

        def agree(ready: Any) -> None:
            show.close()
            if show.json:
                typer.echo(json.dumps({"event": "upload", **ready.summary}))
            for line in ready.lines():
                show.line(line)
            if not yes and not typer.confirm("Upload?"):
                raise BitwrightError("not confirmed: nothing was uploaded")

        url = library.push(
            out, repo, private=private, revision=revision, endpoint=endpoint, agree=agree, watch=show.event
        )
        show.close()
        if show.json:
            typer.echo(json.dumps({"event": "pushed", "url": url}))
        show.line(f"pushed: {url}")

    guarded(as_json, work, resume=True)


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for the result; an earlier demo there is replaced.")
    ] = Path("demo-output"),
    task: Annotated[
        str, typer.Option(help="language, vision (digits), speech (spoken words) or detect (digits in scenes).")
    ] = "language",
    bits: Annotated[
        int | None, typer.Option(min=2, max=8, help="Bits per weight. Default: 4 for language, 8 for the others.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Quantize a bundled model offline, on data from this machine: Python's library, digits, its own speech, scenes."""

    def work(show: Show) -> None:
        import shutil

        from bitwright import library
        from bitwright.engine import demo as demos
        from bitwright.models import kind_of

        demos.make(task, None, bits)  # a mistyped task must not cost the earlier demo
        if os.path.lexists(out):
            if not demos.made(out):
                raise RecipeError("is not an earlier demo's output", where=str(out), fix="Choose another -o")
            shutil.rmtree(out)
        try:
            model, made = demos.make(task, out / "data", bits)
            kind = kind_of(model)
            result = out if kind.holds == "tensors" else out / f"{model.parent.name}.onnx"
            partial = kind.partial(result)
            job = library.plan(model, result, recipe=made)
        except BaseException:
            shutil.rmtree(out / "data", ignore_errors=True)
            with suppress(OSError):  # it is not there, or another demo's by now
                out.rmdir()
            raise
        try:
            do_quantize(show, job)
        except BaseException:
            for half in (partial, out):  # half a demo would block the next one
                shutil.rmtree(half, ignore_errors=True)
            raise
        page = out / "report.html"
        page.write_text(library.report(result).html, "utf-8")
        show.line(f"report:  {page}")

    guarded(as_json, work, out=out)
