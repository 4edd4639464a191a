"""From a folder of content to what a page shows: numbers computed by the engine, then text, formulas and figures.

A lesson is `lesson.md` and `numbers.py` in one folder. `numbers()` returns a table of numbers, which prose names as
`[[ name ]]` (Jinja with other brackets: `[[ mse | sci ]]`), and of Figures, which fences name.
"""

from __future__ import annotations

import importlib.util
import re
import traceback
from pathlib import Path
from typing import Any

import jinja2
from pydantic import Field

from bitwright.authoring.figures import (
    KINDS,
    Choice,
    Control,
    Figure,
    Part,
    Text,
    positions,
    read_part,
    start_of,
    views,
)
from bitwright.authoring.filters import FILTERS
from bitwright.authoring.folder import read_page
from bitwright.authoring.library import Library
from bitwright.authoring.markdown import Document, formula, plain_text, program
from bitwright.errors import InputError

WORDS_A_MINUTE = 180
"""Reading speed for text that makes one stop and think."""
FIGURE_MINUTES = 0.75
"""Time a figure is played with."""


class Front(Part):
    """The head of a lesson, TOML between two lines of `+++`."""

    title: Text
    lead: Text
    """Two sentences that say why to read on; shown below the title, in lists, in the daily edition and in feeds."""
    terms: tuple[str, ...] = ()
    """Words by which it is found."""
    sources: tuple[str, ...] = Field(default=())
    """Papers and specifications, one per line of Markdown."""


def page_of(library: Library, slug: str) -> dict[str, Any]:
    """The page of a lesson that the plan names, compiled unless `library` has kept it."""
    page = library.page(slug)
    if page is None:
        page = compile_lesson(library.lesson_folder(slug))
        library.keep(slug, page)
    return page


def compile_lesson(folder: Path) -> dict[str, Any]:
    """Everything a page needs of the lesson in `folder`, as plain JSON data. InputError says what does not fit."""
    path = folder / "lesson.md"
    head, body = read_page(path)
    front = read_part(Front, head, str(path))
    numbers = load_numbers(folder)
    figures = {name: payload(value) for name, value in numbers.items() if isinstance(value, Figure)}
    values = {name: value for name, value in numbers.items() if not isinstance(value, Figure)}
    document = Document(figures, str(path))
    filled = fill(body, values, str(path))
    html = document.render(filled)
    for tag in document.figures:
        check_figure(tag.kind, numbers[tag.data], f"{path}: figure {tag.data}")
    for name in figures.keys() - {tag.data for tag in document.figures}:
        raise InputError(f"figure {name!r} is not shown", where=str(path), fix="Show it, or leave it out of numbers()")
    return {
        "slug": folder.name,
        "title": front.title,
        "lead": fill(front.lead, values, str(path)),
        "terms": list(front.terms),
        "minutes": minutes(html, len(figures)),
        "html": html,
        "opening": html[: html.find("</figure>") + len("</figure>")] if figures else html,
        "opening_text": plain_text(re.split(r"^(?:```|## )", filled, maxsplit=1, flags=re.MULTILINE)[0]).strip(),
        "sections": document.sections,
        "figures": [{"name": tag.data, "kind": tag.kind, "alt": tag.alt} for tag in document.figures],
        "questions": document.questions,
        "sources": [document.inline(source) for source in front.sources],
    }


def load_numbers(folder: Path) -> dict[str, Any]:
    """What `numbers()` of the folder's numbers.py returns; an empty table where it has none."""
    path = folder / "numbers.py"
    if not path.exists():
        return {}
    spec = importlib.util.spec_from_file_location(f"numbers_{folder.name.replace('-', '_')}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        found = module.numbers()
    except Exception as error:  # a lesson's own program may fail in any way; its reader gets one line
        line = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else line.line}"
        raise InputError(what, where=f"{path} ({Path(line.filename).name}:{line.lineno})", fix="Correct it") from error
    if not isinstance(found, dict):
        raise InputError("numbers() returns no table", where=str(path), fix="Return a dict of numbers and figures")
    return found


def fill(text: str, values: dict[str, Any], where: str) -> str:
    """`text` with every `[[ name ]]` replaced; InputError names one that has no value."""
    environment = jinja2.Environment(
        variable_start_string="[[",
        variable_end_string="]]",
        block_start_string="[%",
        block_end_string="%]",
        comment_start_string="[#",
        comment_end_string="#]",
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= FILTERS
    try:
        return environment.from_string(text).render(values)
    except jinja2.TemplateError as error:
        line = f" in line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        fix = "Return it from numbers()"
        raise InputError(f"{error.message}{line}", where=where, fix=fix) from error


def payload(figure: Figure) -> dict[str, Any]:
    """A figure as the page gets it, and the view it starts with."""
    base, states = dict(figure.base), [dict(state) for state in figure.states]
    for table in (base, *states):
        _typeset(table)
    page = {
        "controls": [_control(name, control) for name, control in figure.controls.items()],
        "base": base,
        "states": states,
        "compute": figure.compute,
    }
    if figure.compute:
        return {"page": page, "first": views(figure)[0]}
    index = 0
    for control in figure.controls.values():
        index = index * len(positions(control)) + start_of(control)
    return {"page": page, "first": base | states[index]}


def _control(name: str, control: Control) -> dict[str, Any]:
    """A control as the page gets it; it starts at an index of its positions."""
    given = {"name": name, "type": type(control).__name__.lower(), **control.model_dump(exclude_defaults=True)}
    if isinstance(control, Choice):
        given["options"] = list(control.options.items())
    return given | {"start": start_of(control)}


def _typeset(view: dict[str, Any]) -> None:
    """Fill in the HTML of a formula or a program, in place."""
    if "tex" in view:
        view["html"] = formula(view["tex"], display=True)
    if "source" in view and "line" not in view.get("html", ""):
        view["html"] = program(view["source"], "python")


def check_figure(kind: str, figure: Figure, where: str) -> None:
    """Raise InputError where a figure cannot be drawn as `kind`, or its states do not match its controls."""
    if kind not in KINDS:
        raise InputError(f"no figure is called {kind!r}", where=where, fix=f"Known: {', '.join(KINDS)}")
    expected = 1
    for control in figure.controls.values():
        expected *= len(positions(control))
    if not figure.compute and len(figure.states) != expected:
        fix = "Make it with explore(), still() or live()"
        raise InputError(f"{len(figure.states)} states for {expected} positions", where=where, fix=fix)
    for view in views(figure):
        read_part(KINDS[kind], view, where)


def minutes(html: str, figures: int) -> int:
    """How long a lesson takes to read, in whole minutes."""
    words = len(re.sub(r"<script.*?</script>|<annotation.*?</annotation>|<[^>]+>", " ", html, flags=re.DOTALL).split())
    return max(1, round(words / WORDS_A_MINUTE + figures * FIGURE_MINUTES))
