"""The commands of the studio: the web app and its daily edition."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from bitwright.cli.app import Show, app, guarded
from bitwright.cli.commands import written_as
from bitwright.libraries import load

Data = Annotated[
    Path | None,
    typer.Option(help="Folder for progress, runs and computed lessons. Default: your user data folder."),
]


@app.command()
def studio(
    data: Data = None,
    models: Annotated[
        list[Path] | None, typer.Option(help="Folders from which models may be opened. Default: the current folder.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port. Default 8737; 0 for any free one.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any but this machine's own requires a token.")
    ] = "127.0.0.1",
    token: Annotated[str | None, typer.Option(help="The access token. Default: a new one.")] = None,
    database: Annotated[
        str | None, typer.Option(help="postgresql://USER@HOST/NAME, instead of a file below --data.")
    ] = None,
    max_upload: Annotated[str, typer.Option(help="Largest model that may be uploaded to be checked.")] = "4GB",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the studio in your browser.")] = True,
) -> None:
    """Open the studio: today's edition, lessons and the workbench, in your browser, on this machine."""

    def work(show: Show) -> None:
        from bitwright.engine.options import size
        from bitwright.studio.shell.config import Config, default_data
        from bitwright.studio.shell.serve import serve

        config = Config(
            data=(data or default_data()).absolute(),
            models=tuple(folder.resolve() for folder in models or [Path.cwd()]),
            host=host,
            port=port,
            token=token,
            database=database,
            max_upload=size(max_upload, "--max-upload") or 0,
        )
        serve(config, show.line, browser)

    guarded(False, work)


@app.command()
def edition(
    day: Annotated[str | None, typer.Option("--date", help="For example 2026-11-23. Default: today.")] = None,
    kind: Annotated[str | None, typer.Option("--format", help="md, html or eml. Default: as -o ends, or md.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A file to write instead of printing.")] = None,
    data: Data = None,
) -> None:
    """Print the daily edition of a date as Markdown, HTML or e-mail. It is the same for everyone."""

    def work(show: Show) -> None:
        from bitwright.authoring.folder import CONTENT
        from bitwright.authoring.library import Library
        from bitwright.studio.shell.config import default_data
        from bitwright.studio.today import letter
        from bitwright.studio.today.edition import day_of
        from bitwright.studio.today.edition import edition as edition_of

        writers: dict[str, Any] = {
            "md": lambda *a: letter.to_markdown(*a).encode(),
            "html": lambda *a: letter.to_html(*a).encode(),
            "eml": letter.to_mail,
        }
        write = writers[written_as(kind, out, list(writers))]
        library = Library(CONTENT, (data or default_data()) / "lessons")
        chosen = edition_of(library, day_of(day) if day else date.today())
        for slug in (chosen.lesson, chosen.question[0]):
            if library.page(slug) is None:
                load()
                from bitwright.authoring.compile import page_of

                page_of(library, slug)
        text = write(library, chosen)
        if out is None:
            sys.stdout.buffer.write(text)
            return
        out.write_bytes(text)
        show.line(f"written: {out}")

    guarded(False, work, out=out)
