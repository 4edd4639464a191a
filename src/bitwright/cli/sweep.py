"""The command that runs several recipes on one model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bitwright.cli.app import Show, app, guarded
from bitwright.cli.commands import found
from bitwright.cli.options import Device, Json, MaxRam, Model
from bitwright.errors import BitwrightError
from bitwright.events import Member, drain


@app.command()
def sweep(
    model: Model,
    recipes: Annotated[list[Path], typer.Argument(help="TOML files: each a recipe, or a [grid] of them.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder of the outputs, one for each recipe.")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Recipes at work at once. Default: processors / threads.")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, help="Processor threads of each. The outputs' bytes may depend on it, not on workers.")
    ] = 1,
    max_ram: MaxRam = None,
    device: Device = "cpu",
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be done, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Quantize a model by several recipes, and compare. If interrupted, the same command continues."""

    def work(show: Show) -> None:
        from bitwright import library

        job = library.plan_sweep(
            found(show, model), out, recipes, workers=workers, threads=threads, max_ram=max_ram, device=device
        )
        if show.json:
            typer.echo(json.dumps({"event": "plan", **job.summary}))
        show.line(str(job))
        if plan:
            return
        swept = drain(job.run(), lambda event: _tell(show, event))
        show.close()
        show.line(str(swept))
        if show.json:
            names = {name: str(path) for name, path in swept.outs.items()}
            typer.echo(json.dumps({"event": "swept", "outs": names, "best": swept.best, "failed": swept.failed}))
        if swept.failed:
            what = f"{len(swept.failed)} of {len(job.job.members)} recipes failed: {', '.join(swept.failed)}"
            raise BitwrightError(what, where=str(out), fix="The same command tries these again")

    guarded(as_json, work, resume=True, out=out)


def _tell(show: Show, event: Any) -> None:
    """Show an event; of members only how they ended, to people."""
    if not isinstance(event, Member) or show.json:
        show.event(event)
    elif event.of["event"] == "error":
        show.line(f"  {event.name}: {event.of['text']}")
    elif event.of["event"] == "finished":
        from bitwright.engine.report import headline

        show.line(f"  {event.name}: {headline(event.of['certificate'])}")
