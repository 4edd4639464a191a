"""The texts of a problem as HTML: statement, hints and approach, with formulas set."""

from __future__ import annotations

import re
from typing import Any

from bitwright.authoring.markdown import Document, plain_text
from bitwright.judge.problem import Problem

SAMPLES = re.compile(r"^\[\[ samples \]\][ \t]*$", re.MULTILINE)


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
