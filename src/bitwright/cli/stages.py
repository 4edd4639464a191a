"""The commands that make a float model of a float model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bitwright.cli.app import Show, app, guarded
from bitwright.cli.commands import do_quantize, found, show_plan
from bitwright.cli.options import (
    Calib,
    CopyCode,
    Device,
    Heldout,
    HeldoutCount,
    Json,
    Length,
    MaxRam,
    MaxShardSize,
    Out,
    Threads,
    WindowCount,
)

Float = Annotated[str, typer.Argument(help="A float model folder, or hub:OWNER/NAME[@REVISION] to download one.")]
Seed = Annotated[int | None, typer.Option(help="Seed of whatever is drawn. Default 0.")]
PlanOnly = Annotated[bool, typer.Option("--plan", help="Show what would be done, and stop.")]


@app.command()
def prune(
    model: Float,
    out: Out,
    keep: Annotated[
        float | None, typer.Option(help="The share of the decoder blocks' parameters to keep, at most: 0.8.")
    ] = None,
    params: Annotated[
        str | None, typer.Option(help="Parameters of the whole output, at most, instead of --keep: 100M.")
    ] = None,
    cut: Annotated[
        str | None, typer.Option(help="What may go: width, heads, layers, or several, as in width,heads.")
    ] = None,
    multiple: Annotated[
        int | None, typer.Option(help="The MLP's width stays a multiple of 32, 64, 128 or 256. Default 64.")
    ] = None,
    importance: Annotated[
        str | None, typer.Option(help="What goes first: elimination, taylor or activation. Default: elimination.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair/--no-repair", help="Fit what remains to the float layers' answers.")
    ] = True,
    calib: Calib = None,
    windows: WindowCount = None,
    length: Length = None,
    heldout: Heldout = None,
    heldout_windows: HeldoutCount = None,
    seed: Seed = None,
    max_shard_size: MaxShardSize = None,
    copy_code: CopyCode = False,
    plan: PlanOnly = False,
    max_ram: MaxRam = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Take channels, heads or layers out of a language model: smaller and faster. If interrupted, it continues."""
    given: dict[str, Any] = dict(
        keep=keep, params=params, cut=cut,
        multiple=multiple, importance=importance, repair=repair, calib=calib, windows=windows, length=length,
        heldout=heldout, heldout_windows=heldout_windows, seed=seed, max_shard_size=max_shard_size,
        copy_code=copy_code or None,
    )  # fmt: skip

    where: dict[str, Any] = dict(max_ram=max_ram, device=device, threads=threads)
    guarded(as_json, lambda show: _do(show, "prune", model, out, plan, given | where), resume=True, out=out)


@app.command()
def distil(
    teacher: Annotated[
        str, typer.Argument(help="The model that teaches: a folder, GGUF file or hub:OWNER/NAME[@REVISION].")
    ],
    student: Annotated[str, typer.Argument(help="The float model folder that learns, such as a pruned one.")],
    out: Out,
    calib: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            help="Text to learn from: a file, JSONL, folder, stdlib, hub:NAME[@REVISION] or self, which the teacher "
            "writes; once more for each further source, mixed evenly or by shares, as in a.txt:3.",
        ),
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help="Tokens to learn from, e.g. 5M; a shorter text comes again. Default 1M.")
    ] = None,
    length: Length = None,
    batch: Annotated[int | None, typer.Option(help="Windows a step. Default 8.")] = None,
    rate: Annotated[float | None, typer.Option(help="The highest rate of AdamW. Default 0.0003.")] = None,
    warmup: Annotated[
        float | None, typer.Option(help="The share of the steps in which the rate rises. Default 0.05.")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="forward, reverse or jensen-shannon: which KL falls. Default: forward.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="By which logits are divided. Default 1.")] = None,
    labels: Annotated[
        float | None, typer.Option(help="The share of the loss that is the text's own next tokens. Default 0.")
    ] = None,
    hidden: Annotated[
        float | None, typer.Option(help="Weight of the error of the last hidden states. Default 0; needs --exact.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Keep all that the teacher says, not 12 words drawn at each position.")
    ] = False,
    cache: Annotated[
        str | None, typer.Option(help="A file that keeps what the teacher says for other runs too.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="End after so many looks, of 20, that are no better. Default 0: never.")
    ] = None,
    mixed: Annotated[bool, typer.Option("--mixed", help="Multiply in bfloat16 while learning.")] = False,
    heldout: Heldout = None,
    heldout_windows: HeldoutCount = None,
    seed: Seed = None,
    max_shard_size: MaxShardSize = None,
    copy_code: CopyCode = False,
    plan: PlanOnly = False,
    max_ram: MaxRam = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Teach a language model what another one says: to heal a pruned model, say. If interrupted, it continues."""
    given: dict[str, Any] = dict(
        calib=calib, tokens=tokens, length=length, batch=batch, rate=rate, warmup=warmup, loss=loss,
        temperature=temperature, labels=labels, hidden=hidden, exact=exact or None, cache=cache, patience=patience,
        mixed=mixed or None, heldout=heldout, heldout_windows=heldout_windows, seed=seed,
        max_shard_size=max_shard_size, copy_code=copy_code or None, teacher=teacher,
    )  # fmt: skip

    where: dict[str, Any] = dict(max_ram=max_ram, device=device, threads=threads)

    def work(show: Show) -> None:
        found(show, teacher)  # what is downloaded is said
        _do(show, "distil", student, out, plan, given | where)

    guarded(as_json, work, resume=True, out=out)


def _do(show: Show, stage: str, source: str, out: Path, only_plan: bool, given: dict[str, Any]) -> None:
    """Plan a stage, and run it unless only its plan is wanted."""
    from bitwright import library

    job = library.plan_stage(stage, found(show, source), out, **given)
    if only_plan:
        show_plan(job, show)
    else:
        do_quantize(show, job)
