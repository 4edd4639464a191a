"""The texts of a problem as HTML: statement, hints and approach, with formulas set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bitwright.errors import InputError
from bitwright.judge.problem import Problem, ProblemError
from bitwright.studio.content import Library
from bitwright.studio.statements import Statements
from bitwright.studio.worker.markdown import Document, plain_text

SAMPLES = re.compile(r"^\[\[ samples \]\][ \t]*$", re.MULTILINE)


def statement(content: str, cache: str, slug: str) -> dict[str, Any]:
    """Compile a problem's texts unless they are kept already; returns its slug."""
    library = Library(Path(content), Path(cache))
    try:
        problem = library.shelf.problem(slug)
        kept = Statements(library, Path(cache))
        if kept.get(problem) is None:
            kept.keep(problem, compile_statement(problem))
    except ProblemError as error:
        raise InputError(str(error), where=f"problem {slug}", fix="Correct the problem's folder") from error
    return {"slug": slug}


def compile_statement(problem: Problem) -> dict[str, Any]:
    """`html` (the samples' place is `<p>[[ samples ]]</p>`), `lead` (the first paragraph as HTML), `text` (Markdown
    without tones and samples), `hints` (HTML each), `approach`, `sources`. InputError says what does not fit.
    """
    where = f"{problem.slug}/problem.md"
    html = Document(where=where).render(problem.statement)
    first = re.sub(r"[:,]$", ".", problem.statement.partition("\n\n")[0].rstrip())  # what it led to is left out
    hints = [Document(where=f"{problem.slug}/hints.md").render(text) for text in problem.hints]
    return {
        "html": html,
        "lead": Document(where=where).render(first),
        "text": plain_text(SAMPLES.sub("", problem.statement)).replace("\n\n\n", "\n\n").strip(),
        "hints": hints[:-1],
        "approach": hints[-1],
        "sources": [Document(where=where).inline(source) for source in problem.sources],
    }
