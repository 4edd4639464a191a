"""Practice in the terminal: list, show, start, run, submit, hint."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from bitwright.cli.app import Show, app, guarded
from bitwright.cli.options import Json
from bitwright.errors import BitwrightError, FileError, InputError, ResourceError

practice = typer.Typer(no_args_is_help=True, help="Solve problems: list, show, start, run, submit.")
app.add_typer(practice, name="practice")

Slug = Annotated[str, typer.Argument(help="A problem, as `practice list` names it.")]
Program = Annotated[Path, typer.Argument(help="Your program.")]
Of = Annotated[
    str | None, typer.Option("--problem", help="Which problem it solves. Default: the name of the file or its folder.")
]


@contextmanager
def judging(cache: Path | None) -> Iterator[tuple[Any, Any]]:
    """The shelf of problems and a judge, whose faults are errors of Bitwright; prepared tests are kept in `cache`."""
    from bitwright.judge.judge import Judge
    from bitwright.judge.pool import Busy, Unavailable
    from bitwright.judge.problem import ProblemError, Shelf
    from bitwright.judge.tiers import open_pool
    from bitwright.studio.config import CONTENT

    try:
        with open_pool() as pool:
            yield Shelf(CONTENT), Judge(pool, cache)
    except ProblemError as error:
        raise InputError(str(error), where="practice", fix="See bitwright practice list") from error
    except (Unavailable, Busy) as error:
        raise ResourceError(str(error), where="judge", fix="See bitwright doctor") from error


def _cache() -> Path:
    from bitwright.studio.config import default_data

    return default_data() / "problems"


@practice.command("list")
def list_problems(
    collection: Annotated[str | None, typer.Option(help="Only this collection.")] = None,
    as_json: Json = False,
) -> None:
    """All problems, by collection."""

    def work(show: Show) -> None:
        from bitwright.judge.problem import Shelf
        from bitwright.studio.config import CONTENT

        shelf = Shelf(CONTENT)
        if collection and collection not in [found.slug for found in shelf.collections]:
            names = ", ".join(found.slug for found in shelf.collections)
            raise InputError(
                f"there is no collection {collection!r}", where="--collection", fix=f"Choose one of {names}"
            )
        for found in shelf.collections:
            if collection not in (None, found.slug):
                continue
            show.line(f"{found.title}: {found.summary}")
            for problem in map(shelf.problem, found.problems):
                if as_json:
                    facts = {"slug": problem.slug, "title": problem.title, "difficulty": problem.difficulty}
                    typer.echo(
                        json.dumps({"event": "problem", "collection": found.slug, **facts, "tags": problem.tags})
                    )
                show.line(f"  {problem.slug:<32} {problem.difficulty:<7} {problem.minutes:>3} min  {problem.title}")

    guarded(as_json, work)


@practice.command()
def show(slug: Slug) -> None:
    """The statement of a problem, with worked examples."""

    def work(display: Show) -> None:
        with judging(_cache()) as (shelf, judge):
            problem = shelf.problem(slug)
            tests = judge.tests(problem)
        from bitwright.judge.judge import shown
        from bitwright.judge.values import show as value

        samples = []
        for test in tests.samples:
            code = f"```\n{shown(problem, test.arguments)}\nresult: {value(test.expected)}\n```"
            samples.append("\n\n".join([f"**{test.name}**", code, *([test.note] if test.note else [])]))
        limits = f"{problem.limits.cpu:g} s of CPU time and {problem.limits.memory} MB a test"
        statement = problem.statement.replace("[[ samples ]]", "\n\n".join(samples))
        text = f"# {problem.title}\n\n{statement}\n\n{problem.difficulty}, about {problem.minutes} minutes, {limits}"
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.markdown import Markdown

            Console().print(Markdown(text))
            return
        display.line(text)

    guarded(False, work)


@practice.command()
def start(
    slug: Slug,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The file to write. Default: SLUG.py.")] = None,
) -> None:
    """Write the starter of a problem to a file."""

    def work(display: Show) -> None:
        from bitwright.judge.problem import ProblemError, Shelf
        from bitwright.studio.config import CONTENT

        path = out or Path(f"{slug}.py")
        try:
            text = Shelf(CONTENT).problem(slug).text("starter.py")
        except ProblemError as error:
            raise InputError(str(error), where="practice", fix="See bitwright practice list") from error
        if path.exists():
            raise InputError("is there already", where=str(path), fix="Choose another -o, or remove it")
        path.write_text(text, "utf-8")
        display.line(f"written: {path}")
        display.line(f"then: bitwright practice run {path}; bitwright practice submit {path}")

    guarded(False, work, out=out)


@practice.command()
def hint(
    slug: Slug,
    number: Annotated[int, typer.Argument(min=1, max=4, help="1 to 3; 4 is the approach.")] = 1,
) -> None:
    """A hint: each says a little more; the fourth is the approach."""

    def work(display: Show) -> None:
        from bitwright.judge.problem import ProblemError, Shelf
        from bitwright.studio.config import CONTENT

        try:
            display.line(Shelf(CONTENT).problem(slug).hints[number - 1])
        except ProblemError as error:
            raise InputError(str(error), where="practice", fix="See bitwright practice list") from error

    guarded(False, work)


@practice.command()
def run(
    program: Program,
    problem: Of = None,
    given: Annotated[
        str | None, typer.Option("--input", help="Your own input: literals, like 'nums = [1, 2]'.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a program on the samples, and on an input of your own; never counted."""

    def work(display: Show) -> None:
        with judging(_cache()) as (shelf, judge):
            code, found = _read(program, problem, shelf)
            own = [judge.own(found, given)] if given else []
            _tell(display, as_json, judge.run(found, code, own), whole=True)

    guarded(as_json, work)


@practice.command()
def submit(program: Program, problem: Of = None, as_json: Json = False) -> None:
    """Submit a program: the verdict on every test, and the first difference."""

    def work(display: Show) -> None:
        with judging(_cache()) as (shelf, judge):
            code, found = _read(program, problem, shelf)
            result = judge.submit(found, code)
            _tell(display, as_json, result, whole=False)
            if result.verdict != "AC":
                raise BitwrightError(
                    result.sentence, where=str(program), fix=f"See bitwright practice hint {found.slug}"
                )

    guarded(as_json, work)


def _read(program: Path, named: str | None, shelf: Any) -> tuple[str, Any]:
    """A program's text and its problem."""
    try:
        code = program.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot be read ({error})", where=str(program), fix="Give a Python file") from error
    names = [named] if named else [program.stem, program.resolve().parent.name]
    for name in names:
        if (shelf.folder / name).is_dir():
            return code, shelf.problem(name)
    fix = "Give --problem SLUG; bitwright practice list has them"
    raise InputError(f"solves no problem called {' or '.join(map(repr, names))}", where=str(program), fix=fix)


def _tell(display: Show, as_json: bool, result: Any, whole: bool) -> None:
    """A result for people, or as one event."""
    if as_json:
        typer.echo(json.dumps({"event": "result", **result.json()}))
        return
    for number, case in enumerate(result.cases, 1):
        used = f"{case.cpu * 1e3:7.0f} ms {case.memory / 1e6:6.1f} MB"
        display.line(f"  {number:>3} {case.name:<32} {case.verdict.words:<20} {used}")
        if case.verdict == "AC" and not whole:
            continue
        for name, text in (
            ("input", case.input),
            ("expected", case.expected),
            ("yours", case.yours),
            ("printed", case.output),
        ):
            if text.strip():
                display.line("      " + f"{name}: {text.strip()}".replace("\n", "\n      "))
        if case.difference:
            display.line(f"      {case.difference.text}")
        elif case.reason:
            display.line(f"      {case.reason}")
        for name, line, text in (case.error or {}).get("stack", []):
            display.line(f"      line {line}, in {name}: {text.strip()}")
    display.line(f"{result.sentence}, {result.cpu * 1e3:.0f} ms of CPU time, tier {result.tier}")
    if result.reason and not result.cases:
        display.line(result.reason)
    if result.growth and result.growth["exponent"] is not None:
        display.line(f"time grew like n^{result.growth['exponent']:.2f}, n^{result.growth['allowed']:g} is asked for")
