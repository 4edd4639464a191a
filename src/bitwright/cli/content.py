"""Commands for authors of lessons and problems: create one, and check that it holds."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from bitwright.cli.app import Show, app, group, guarded
from bitwright.cli.options import Json
from bitwright.errors import BitwrightError, InputError
from bitwright.libraries import load

content = group("Write and check the studio's lessons and problems.")
app.add_typer(content, name="content")


@content.command()
def check(
    slugs: Annotated[list[str] | None, typer.Argument(help="Lessons and problems to check. Default: all.")] = None,
    as_json: Json = False,
) -> None:
    """Check lessons (numbers, formulas, links, figures) and problems (references pass, wrong submissions fail)."""

    def work(show: Show) -> None:
        load()
        wrong = 0
        for finding in _findings(slugs or []):
            wrong += not finding.good
            if as_json:
                found = {"event": "finding", "what": finding.what, "good": finding.good, "detail": finding.detail}
                typer.echo(json.dumps(found))
            show.line(f"  {'ok  ' if finding.good else 'BAD '} {finding.what}: {finding.detail}")
        if wrong:
            raise BitwrightError(f"{wrong} findings are bad", where="content", fix="Fix what is named")

    guarded(as_json, work)


def _findings(slugs: list[str]) -> Iterator[Any]:
    from bitwright.authoring.folder import CONTENT
    from bitwright.authoring.library import Library
    from bitwright.authoring.proof import prove as prove_lessons
    from bitwright.cli.practice import judging, near
    from bitwright.judge.problem import Shelf
    from bitwright.judge.proof import prove as prove_problem

    shelf = Shelf(CONTENT)
    lessons = [slug for slug in slugs if slug not in shelf]
    for slug in lessons:
        if not (CONTENT / "lessons" / slug).is_dir():
            known = [*shelf.slugs, *(path.name for path in (CONTENT / "lessons").iterdir())]
            where = "content check"
            fix = f"{near(slug, known)}bitwright practice list names problems, chapters.toml lessons"
            what = "; ".join([f"no lesson and no problem is called {slug!r}", *shelf.faults])
            raise InputError(what, where=where, fix=fix)
    with tempfile.TemporaryDirectory() as fresh:
        if lessons or not slugs:
            yield from prove_lessons(Library(CONTENT, Path(fresh)), lessons)
    folders = (path.name for path in shelf.folder.iterdir() if path.is_dir())
    chosen = [slug for slug in slugs if slug in shelf] if slugs else sorted({*folders, *shelf.slugs})
    if not chosen:
        return
    with judging(None) as (shelf, judge):
        for slug in chosen:
            if slug not in shelf.slugs:
                yield _unlisted(slug)
            yield from prove_problem(judge, shelf.problem(slug))


def _unlisted(slug: str) -> Any:
    from bitwright.judge.proof import Finding

    return Finding(f"problem {slug}", False, "is in no collection of collections.toml")


@content.command()
def new(
    kind: Annotated[str, typer.Argument(help="problem")],
    slug: Annotated[str, typer.Argument(help="Name of the problem's folder, for example product-except-self.")],
) -> None:
    """Create the folder of a new problem, with every file it needs; the gaps to fill are marked TODO."""

    def work(show: Show) -> None:
        from bitwright.authoring.folder import CONTENT
        from bitwright.judge.problem import SLUG

        if kind != "problem":
            raise InputError(f"{kind!r} cannot be created", where="content new", fix="Write: content new problem SLUG")
        folder = CONTENT / "problems" / slug
        if not SLUG.fullmatch(slug):
            raise InputError(
                f"{slug!r} is not a valid folder name",
                where="content new",
                fix="Use small letters, digits and single hyphens",
            )
        if folder.exists():
            raise InputError("already exists", where=str(folder), fix="Choose another name")
        partial = folder.with_name(f".{slug}.partial")
        for name, text in TEMPLATE.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        partial.rename(folder)
        show.line(f"written: {folder}")
        show.line(f"Name it in {CONTENT / 'collections.toml'}, fill the TODOs, then: bitwright content check {slug}")

    guarded(False, work)


TEMPLATE = {
    "problem.md": """+++
title = "TODO"
collection = "core"
difficulty = "easy"
minutes = 15
tags = []
function = "answer"
needs = "plain"

[check]
kind = "exact"
+++

TODO: what is given, what is asked, every edge case, the constraints.

[[ samples ]]
""",
    "hints.md": "## Hint\n\nTODO\n\n## Hint\n\nTODO\n\n## Hint\n\nTODO\n\n## Approach\n\nTODO\n",
    "starter.py": 'def answer(numbers: list[int]) -> int:\n    """TODO."""\n    raise NotImplementedError\n',
    "solution.py": 'def answer(numbers: list[int]) -> int:\n    """TODO."""\n    return sum(numbers)\n',
    "cases.py": """def samples():
    return [("TODO", ([1, 2, 3],))]


def hidden():
    return [("empty", ([],)), ("one", ([5],)), ("negative", ([-1, -2],)), ("zeros", ([0, 0],))]


def generate(rng, size):
    return ([rng.randint(-9, 9) for _ in range(size)],)
""",
    "wrong/forgets-the-last.py": "def answer(numbers):\n    return sum(numbers[:-1])\n",
    "wrong/counts.py": "def answer(numbers):\n    return len(numbers)\n",
    "wrong/takes-sizes.py": "def answer(numbers):\n    return sum(abs(n) for n in numbers)\n",
    "explain.toml": 'idea = "TODO"\nwatch = []\n'
    + "".join(
        f'\n[mistakes.{slug}]\nverdict = "WA"\nname = "TODO"\nsays = "TODO"\nnext = "TODO"\n'
        for slug in ("forgets-the-last", "counts", "takes-sizes")
    ),
}
"""The files of a new problem: it passes its checks as it is, and says TODO wherever text is missing."""
