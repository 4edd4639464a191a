"""The command that lists methods, formats, containers, rewrites and models, as the registries know them."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from bitwright.cli.app import Show, app, guarded
from bitwright.cli.options import Json


@app.command("list")
def listing(
    what: Annotated[
        str, typer.Argument(help="methods, formats, containers, rewrites or models (the supported kinds).")
    ],
    as_json: Json = False,
) -> None:
    """List the available methods, formats, containers, rewrites or models, plugins included."""

    def work(show: Show) -> None:
        from bitwright.engine.listing import entries

        for entry in entries(what):
            if show.json:
                typer.echo(json.dumps({"event": "entry", "list": what, **entry}))
            else:
                tell(show, dict(entry))

    guarded(as_json, work)


def tell(show: Show, entry: dict[str, Any]) -> None:
    """One entry: its name and title on one line, its other fields below."""
    show.line(f"{entry.pop('name'):<24} {entry.pop('title')}")
    for key, value in entry.items():
        if value not in ([], {}):
            show.line(f"{'':<24} {key}: {words(value)}")


def words(value: Any) -> str:
    """A value of an entry in words."""
    if isinstance(value, dict):
        return ", ".join(f"{key} = {json.dumps(each)}" for key, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
