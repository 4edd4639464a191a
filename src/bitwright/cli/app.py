"""The program: its commands come from the modules beside this one; an error is one line and an exit code."""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bitwright import __version__
from bitwright.errors import BitwrightError, Interrupted

UsageError: Any = typer.BadParameter.__base__
"""What typer raises for a command line that it cannot read; it exports only this child of it."""


class _Commands(TyperGroup):
    """A command group that suggests the nearest name for a mistyped command and reports errors in one line."""

    def main(self, *args: Any, **extra: Any) -> Any:
        if not extra.get("standalone_mode", True):
            return super().main(*args, **extra)
        extra["standalone_mode"] = False  # errors come here instead of being drawn in a box
        extra["prog_name"] = "bitwright"  # also as `python -m bitwright`
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # a name that the terminal's encoding lacks is no reason to stop
                stream.reconfigure(errors="backslashreplace")
        try:
            code = super().main(*args, **extra)
            if sys.stdout is not None:  # it is where the process was started without one
                sys.stdout.flush()
        except BrokenPipeError:  # whoever read the output has seen enough
            code = _without_stdout(1)
        except OSError as error:
            fix = "Check where the output is sent, and its free space"
            code = _without_stdout(3)
            _report(False, f"standard output: {error.strerror or error}. {fix}", "ResourceError", 3)
        except UsageError as error:
            if error.ctx and error.format_message() == error.ctx.get_help():  # no arguments at all
                typer.echo(error.format_message())
                sys.exit(error.exit_code)
            words = args[0] if args else extra.get("args")
            as_json = "--json" in (sys.argv[1:] if words is None else words)
            code = _report(as_json, _usage(error), "RecipeError", error.exit_code)
        except typer.Abort:
            code = 1
        sys.exit(code if isinstance(code, int) else 0)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, self.commands[name].get_short_help_str(1000)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if ctx.resilient_parsing:  # a shell asks how to go on
            return super().resolve_command(ctx, args)
        if args and self.get_command(ctx, args[0]) is None:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1, 0.6)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not isinstance(command, TyperGroup):
            _require_once(command.context_class(command, info_name=name, parent=ctx), list(rest))
        return name, command, rest


def _require_once(context: Any, words: list[str]) -> None:
    """A usage error where an option that has one value is given twice: the last would win in silence."""
    _, _, given = context.command.make_parser(context).parse_args(args=words)
    for option, count in Counter(given).items():
        if count > 1 and option.param_type_name == "option" and not option.multiple:
            context.fail(
                f"{'/'.join([*option.opts[:1], *option.secondary_opts])} is given {count} times. Give it once."
            )


def _without_stdout(code: int) -> int:
    """Let nothing more be written to standard output, not even when the process ends; returns `code`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code


def group(help: str, **options: Any) -> typer.Typer:
    """A group of commands. Help is plain text: Rich cuts long options off, and takes [words] for its markup."""
    settings = {"help_option_names": ["-h", "--help"]}
    return typer.Typer(
        cls=_Commands, no_args_is_help=True, rich_markup_mode=None, context_settings=settings, help=help, **options
    )


app = group(
    "Quantize neural networks and measure what it costs: a plan before, a certificate and a verdict after.",
    pretty_exceptions_enable=False,
)


class Show:
    """Prints events: JSON lines, a progress bar with ETA on a terminal, or plain lines elsewhere."""

    def __init__(self, as_json: bool) -> None:
        self.json = as_json
        self._bar: Any = None
        self._task: Any = None
        self._phase = ""
        self._quarter = -1
        self._noted: set[str] = set()

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
        from bitwright.events import Finding, Learned, Note, Progress, Row, Started

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
            self.line(f"  {event.sign} {event.what}: {event.detail}")
        elif isinstance(event, Row):
            self._notes(event)
        elif isinstance(event, Learned):
            if event.kl is not None:
                loss = "" if event.loss is None else f"loss {event.loss:.4f}, "
                self.line(f"  step {event.step} of {event.steps}: {loss}KL {event.kl:.4f} on text not learned from")
        elif isinstance(event, Progress):
            self._progress(event)

    def _notes(self, row: Any) -> None:
        """The notes of a matrix, each kind once: the verdict counts them."""
        from bitwright.words import kind_of_note

        new = [note for note in row.notes if kind_of_note(note) not in self._noted]
        self._noted.update(map(kind_of_note, new))
        if new:
            self.line(f"  {row.name}: {'; '.join(new)}")

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
                TextColumn("{task.fields[label]}", style="dim", markup=False),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=1.0, phase=event.phase, label="")
        self._bar.update(self._task, completed=share, phase=event.phase, label=event.label[-48:])

    def close(self) -> None:
        """Remove the progress bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


EXTRAS = {
    "onnx": ("onnx", "onnxruntime", "PIL", "sklearn"),
    "studio": (
        "alembic", "markdown_it", "mdit_py_plugins", "multipart", "platformdirs", "py_mini_racer", "pygments",
        "python_multipart", "sqlalchemy", "starlette", "uvicorn",
    ),
}  # fmt: skip
"""Modules that each optional extra installs."""


def guarded(as_json: bool, work: Callable[[Show], None], resume: bool = False, out: Path | None = None) -> None:
    """Run a command's work. Any deliberate error becomes one line and its exit code; Ctrl-C is a clean stop.

    `out` is where the command writes; a full disk is reported with it.
    """
    show = Show(as_json)
    try:
        work(show)
    except BitwrightError as error:
        show.close()
        _fail(as_json, str(error), type(error).__name__, error.exit_code)
    except KeyboardInterrupt:
        show.close()
        text = "stopped; finished work is kept, and the same command continues" if resume else "stopped"
        _fail(as_json, text, "Interrupted", Interrupted.exit_code)
    except BrokenPipeError:
        raise
    except OSError as error:
        show.close()
        where = error.filename or out or "standard output"
        fix = "Check the path, its permissions and the free disk space; finished work is kept"
        _fail(as_json, f"{where}: {error.strerror or error}. {fix}", "ResourceError", 3)
    except MemoryError:
        show.close()
        _fail(as_json, "out of memory under the ceiling. Raise --max-ram or use --method rtn", "ResourceError", 3)
    except ModuleNotFoundError as error:
        show.close()
        missing = (error.name or "").split(".")[0]
        extra = next((extra for extra, modules in EXTRAS.items() if missing in modules), None)
        if extra is None:
            raise
        fix = f"This command needs the extra `{extra}`: pip install 'bitwright[{extra}]'"
        _fail(as_json, f"{error.name}: not installed. {fix}", "ResourceError", 3)
    except RuntimeError as error:
        show.close()
        from bitwright.machine import exhausted  # it imports NumPy, which took part if memory ran out

        if not exhausted(error):
            raise
        _fail(as_json, "out of memory under the ceiling. Raise --max-ram or use --method rtn", "ResourceError", 3)
    finally:
        show.close()


def _fail(as_json: bool, text: str, kind: str, code: int) -> None:
    raise typer.Exit(_report(as_json, text, kind, code))


def _report(as_json: bool, text: str, kind: str, code: int) -> int:
    """Print an error as one line, and with --json as one event too; returns `code`."""
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
    """Quantize neural networks and measure what it costs: a plan before, a certificate and a verdict after."""
