"""Practice in the terminal: list, show, start, run, submit, hint, explain; export and import of your work."""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.util import decode_source
from pathlib import Path
from typing import Annotated, Any

import typer

from bitwright.cli.app import Show, app, group, guarded
from bitwright.cli.options import Json, starting
from bitwright.errors import BitwrightError, FileError, InputError, ResourceError
from bitwright.events import Note
from bitwright.files.plain import read, require_new, why

practice = group("Solve problems: list, show, start, run, submit.")
app.add_typer(practice, name="practice")


def _slugs(incomplete: str) -> list[str]:
    """Problems whose slugs begin so, for a shell."""
    from bitwright.authoring.folder import CONTENT
    from bitwright.judge.problem import Shelf

    return starting(Shelf(CONTENT).slugs)(incomplete)


Slug = Annotated[str, typer.Argument(help="A problem's name, from `practice list`.", autocompletion=_slugs)]
Program = Annotated[Path, typer.Argument(help="Your program.")]
Of = Annotated[
    str | None,
    typer.Option(
        "--problem",
        help="The problem it solves. Default: the name of the file or its folder.",
        autocompletion=_slugs,
    ),
]

Data = Annotated[Path | None, typer.Option(help="The studio's data folder. Default: your user data folder.")]
Url = Annotated[
    str | None, typer.Option("--database", help="postgresql://USER@HOST/NAME, instead of a file below --data.")
]
LEASE = 120.0
"""Seconds after which a studio judges a submission whose terminal was killed."""


@contextmanager
def judging(cache: Path | None) -> Iterator[tuple[Any, Any]]:
    """The shelf of problems and a judge whose faults become Bitwright errors; prepared tests are kept in `cache`."""
    from bitwright.authoring.folder import CONTENT
    from bitwright.judge.judge import Judge
    from bitwright.judge.pool import Busy, Unavailable
    from bitwright.judge.problem import ProblemError, Shelf
    from bitwright.judge.tiers import open_pool

    try:
        with open_pool() as pool:
            yield Shelf(CONTENT), Judge(pool, cache)
    except ProblemError as error:
        raise InputError(str(error), where="practice", fix="See bitwright practice list") from error
    except (Unavailable, Busy) as error:
        raise ResourceError(str(error), where="judge", fix="See bitwright doctor") from error


@contextmanager
def recording(data: Path | None, url: str | None) -> Iterator[tuple[Any, int]]:
    """The studio's database and the learner in it: the first profile."""
    from bitwright.studio.shell.config import default_data
    from bitwright.studio.store.learners import current
    from bitwright.studio.store.open import open_database

    database = open_database(url, data or default_data())
    try:
        yield database, current(database).id
    finally:
        database.close()


def find(shelf: Any, slug: str) -> Any:
    """A problem by its slug; InputError with the nearest one where there is none, or its folder is faulty."""
    from bitwright.judge.problem import ProblemError

    try:
        return shelf.problem(slug)
    except ProblemError as error:
        fix = f"{near(slug, shelf.slugs)}See bitwright practice list"
        raise InputError(str(error), where="practice", fix=fix) from error


def near(word: str, known: list[str]) -> str:
    """`Did you mean ...? ` for a mistyped word; "" where nothing is like it."""
    found = difflib.get_close_matches(word, known, 2, 0.6)
    return f"Did you mean {' or '.join(found)}? " if found else ""


def _cache(data: Path | None = None) -> Path:
    from bitwright.studio.shell.config import default_data

    return (data or default_data()) / "problems"


@practice.command("list")
def list_problems(
    collection: Annotated[str | None, typer.Option(help="Only this collection.")] = None,
    as_json: Json = False,
) -> None:
    """List all problems, by collection."""

    def work(show: Show) -> None:
        from bitwright.authoring.folder import CONTENT
        from bitwright.judge.problem import Shelf

        shelf = Shelf(CONTENT)
        if collection and collection not in [found.slug for found in shelf.collections]:
            names = [found.slug for found in shelf.collections]
            fix = f"{near(collection, names)}Choose one of {', '.join(names)}"
            raise InputError(f"there is no collection {collection!r}", where="--collection", fix=fix)
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
        for fault in shelf.faults:
            show.event(Note(fault))

    guarded(as_json, work)


@practice.command()
def show(slug: Slug) -> None:
    """Show a problem's statement with worked examples."""

    def work(display: Show) -> None:
        with judging(_cache()) as (shelf, judge):
            problem = find(shelf, slug)
            tests = judge.tests(problem)
        from bitwright.judge.judge import shown
        from bitwright.judge.values import show as value

        samples = []
        for test in tests.samples:
            code = f"```\n{shown(problem, test.arguments)}\nresult: {value(test.expected)}\n```"
            samples.append("\n\n".join([f"**{test.name}**", code, *([test.note] if test.note else [])]))
        limits = f"{problem.limits.cpu:g} s of CPU time and {problem.limits.memory} MB per test"
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
    """Write a problem's starter code to a file."""

    def work(display: Show) -> None:
        from bitwright.authoring.folder import CONTENT
        from bitwright.judge.problem import Shelf

        path = out or Path(f"{slug}.py")
        text = find(Shelf(CONTENT), slug).text("starter.py")
        require_new(path)
        path.write_text(text, "utf-8")
        display.line(f"written: {path}")
        display.line(f"then: bitwright practice run {path}; bitwright practice submit {path}")

    guarded(False, work, out=out)


@practice.command()
def hint(
    slug: Slug,
    number: Annotated[int, typer.Argument(min=1, max=4, help="Hint 1 to 3; 4 is the approach.")] = 1,
) -> None:
    """Show a hint: each says a little more; the fourth is the approach."""

    def work(display: Show) -> None:
        from bitwright.authoring.folder import CONTENT
        from bitwright.judge.problem import Shelf

        display.line(find(Shelf(CONTENT), slug).hints[number - 1])

    guarded(False, work)


@practice.command()
def run(
    program: Program,
    problem: Of = None,
    given: Annotated[
        str | None, typer.Option("--input", help="Your own input as Python literals, for example 'nums = [1, 2]'.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a program on the samples or on your own input; it does not count as a submission."""

    def work(display: Show) -> None:
        with judging(_cache()) as (shelf, judge):
            code, found = _read(program, problem, shelf)
            own = [judge.own(found, given)] if given else []
            _tell(display, as_json, judge.run(found, code, own), whole=True)

    guarded(as_json, work)


@practice.command()
def submit(
    program: Program, problem: Of = None, as_json: Json = False, data: Data = None, database: Url = None
) -> None:
    """Submit a program: the verdict on every test and the first difference. The studio shows it too."""

    def work(display: Show) -> None:
        from bitwright.studio.practice import ranking, submissions

        with judging(_cache(data)) as (shelf, judge), recording(data, database) as (db, learner):
            code, found = _read(program, problem, shelf)
            now = datetime.now().astimezone()
            me = f"terminal:{os.getpid()}"
            number, job = submissions.submit(db, learner, found.slug, code, now, me, LEASE)
            result = judge.submit(found, code)
            rank = ranking.measure(judge, found, code) if result.verdict == "AC" else None
            submissions.judged(db, number, job, me, result.json(), now.date(), rank)
            _tell(display, as_json, result, whole=False)
            if rank:
                display.line(f"{ranking.unit(found)}: {rank['quality']:.2f} at {rank['bits']:.3f} bits per weight")
            if result.verdict != "AC":
                fix = f"bitwright practice explain {program} --problem {found.slug} says more"
                raise BitwrightError(result.sentence, where=str(program), fix=fix)

    guarded(as_json, work)


@practice.command()
def explain(program: Program, problem: Of = None, as_json: Json = False) -> None:
    """Explain what is wrong with a program: the smallest failing input, the kind of mistake, what to try next."""

    def work(display: Show) -> None:
        from bitwright.judge.explain import explain

        with judging(_cache()) as (shelf, judge):
            code, found = _read(program, problem, shelf)
            told = explain(judge, found, code).json()
        if as_json:
            typer.echo(json.dumps({"event": "explanation", **told}))
            return
        display.line(told["sentence"])
        if told["mistake"]:
            display.line(told["mistake"]["says"])
        case = told["case"] or {}
        if case:
            display.line("the smallest failing input found:" if told["smallest"] else "the input:")
            _show_texts(display, case)
        if told["next"]:
            display.line(f"try next: {told['next']}")
        for step in told["steps"]:
            values = ", ".join(f"{name} = {value}" for name, value in step["variables"].items())
            display.line(f"  line {step['line']:>3}  {values}")
        display.line(f"based on: {told['honest']}")

    guarded(as_json, work)


@practice.command("export")
def export(
    folder: Annotated[Path, typer.Argument(help="The folder to write; files already there are kept.")],
    data: Data = None,
    database: Url = None,
) -> None:
    """Export your solutions, notes, submissions and progress to a folder."""

    def work(display: Show) -> None:
        from bitwright.studio.practice.archive import export_to

        with recording(data, database) as (db, learner):
            display.line(f"written: {export_to(db, learner, folder)} files in {folder}")

    guarded(False, work, out=folder)


@practice.command("import")
def bring(
    folder: Annotated[Path, typer.Argument(help="A folder written by `practice export`.")],
    data: Data = None,
    database: Url = None,
) -> None:
    """Import an exported folder; entries that exist already are not duplicated."""

    def work(display: Show) -> None:
        from bitwright.studio.practice.archive import import_from

        with recording(data, database) as (db, learner):
            counts = import_from(db, learner, folder)
        display.line(", ".join(f"{count} {name}" for name, count in counts.items()))

    guarded(False, work)


def _read(program: Path, named: str | None, shelf: Any) -> tuple[str, Any]:
    """A program's text and its problem."""
    try:
        code = decode_source(read(program))  # as Python reads a file: a byte order mark, or another encoding it names
    except (OSError, ValueError, SyntaxError) as error:
        raise FileError(f"cannot be read ({why(error)})", where=str(program), fix="Give a Python file") from error
    if named:
        return code, find(shelf, named)
    names = [program.stem, program.resolve().parent.name]
    for name in names:
        if name in shelf:
            return code, shelf.problem(name)
    fix = f"{near(names[0], shelf.slugs)}Give --problem SLUG; bitwright practice list shows them"
    raise InputError(f"solves no problem called {' or '.join(map(repr, names))}", where=str(program), fix=fix)


def _tell(display: Show, as_json: bool, result: Any, whole: bool) -> None:
    """Print a result, as text or as one event."""
    if as_json:
        typer.echo(json.dumps({"event": "result", **result.json()}))
        return
    for number, case in enumerate(result.cases, 1):
        used = f"{case.cpu * 1e3:7.0f} ms {case.memory / 1e6:6.1f} MB"
        display.line(f"  {number:>3} {case.name:<32} {case.verdict.words:<20} {used}")
        if case.verdict == "AC" and not whole:
            continue
        texts = {"input": case.input, "expected": case.expected, "yours": case.yours, "output": case.output}
        _show_texts(display, texts)
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
        display.line(f"time grew like n^{result.growth['exponent']:.2f}; n^{result.growth['allowed']:g} is required")


def _show_texts(display: Show, case: dict[str, Any]) -> None:
    """A case's input, expected result, your result and output, each below its name where it exists."""
    for name in ("input", "expected", "yours", "output"):
        if text := str(case.get(name, "")).strip():
            display.line("      " + f"{name}: {text}".replace("\n", "\n      "))
