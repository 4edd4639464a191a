"""The content proves itself: what a reader would stumble over is found before there is a reader."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from bitwright.authoring.compile import page_of
from bitwright.authoring.library import Library
from bitwright.errors import BitwrightError

MOST_BYTES = 500_000
"""Raw size of a lesson's page; about a quarter of it goes over the wire, beside fonts and scripts."""
NAMES = re.compile(
    r"[A-Za-z][A-Za-z_-]*\d[\w.-]*"  # INT4, W4A16, E4M3, Q4_K_M, bf16
    r"|\b\d+-?D\b"
    r"|\(\d{4}\)|\b(?:19|20)\d{2}\b(?=[,;)]|$)"  # the year of a paper
    r"|\barXiv[: ]\d{4}\.\d{4,5}"
)
"""Digits that are names rather than numbers."""
TYPED = re.compile(r"(?<![\w.])\d[\d,.]*\d?(?!\w)")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `good`, and what was seen."""

    what: str
    good: bool
    detail: str

    def json(self) -> dict[str, Any]:
        """The finding as an event for machines."""
        return {"event": "finding", **asdict(self)}


def prove(library: Library, slugs: list[str] | None = None) -> Iterator[Finding]:
    """Look at the lessons of `slugs` (all unless given), compiling those that `library` has not; yields one finding a
    lesson, or one a fault. InputError for a slug that the plan does not name.
    """
    for slug in slugs or library.lessons:
        library.lesson_folder(slug)
    for folder in sorted(path for path in (library.folder / "lessons").iterdir() if path.is_dir()):
        if folder.name not in library.lessons and not slugs:
            yield Finding(f"lesson {folder.name}", False, "stands in no chapter of chapters.toml")
    for slug in slugs or library.lessons:
        yield from _lesson(library, slug)


def _lesson(library: Library, slug: str) -> Iterator[Finding]:
    what = f"lesson {slug}"
    try:
        page = page_of(library, slug)
    except BitwrightError as error:
        yield Finding(what, False, str(error))
        return
    faults = [*typed_numbers(library.lesson_folder(slug) / "lesson.md"), *links(library, page), *wants(page)]
    for fault in faults:
        yield Finding(what, False, fault)
    if not faults:
        seen = f"{len(page['figures'])} figures, {len(page['questions'])} questions"
        yield Finding(what, True, f"{seen}, {page['minutes']} min, {len(page['html']) / 1000:.0f} kB")


def typed_numbers(path: Path) -> list[str]:
    """Digits in prose that nothing computed, as `line: digits`."""
    text = path.read_text("utf-8")
    body = re.sub(r"\A\+\+\+\n.*?\n\+\+\+\n", _blank, text, flags=re.DOTALL)
    body = re.sub(r"^```(figure|question)\n(.*?)^```", _shown, body, flags=re.DOTALL | re.MULTILINE)
    patterns = (
        r"^```.*?^```",
        r"\[\[.*?\]\]",
        r"\[%.*?%\]",
        r"\$\$.*?\$\$",
        r"\$[^$\n]+\$",
        r"`[^`\n]+`",
        r"\]\([^)]*\)",
        r"^\d+\. ",
    )
    for pattern in patterns:
        body = re.sub(pattern, _blank, body, flags=re.DOTALL | re.MULTILINE)
    body = NAMES.sub(_blank, body)
    lines = body.splitlines()
    return [
        f"line {number}: {found} is typed in, not computed"
        for number, line in enumerate(lines, 1)
        for found in TYPED.findall(line)
    ]


def _blank(found: re.Match[str]) -> str:
    """As many lines, and nothing on them."""
    return "\n" * found[0].count("\n")


def _shown(found: re.Match[str]) -> str:
    """The lines of a fence whose values a reader sees; others are blanked."""
    kept = [
        line if re.match(r"(alt|caption|title|ask|why|options)\b|\s*\"", line) else "" for line in found[2].splitlines()
    ]
    return "\n" + "\n".join(kept) + "\n"


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.ids: set[str] = set()
        self.images: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.add(str(given["id"]))
        if tag == "a" and given.get("href"):
            self.targets.append(str(given["href"]))
        if tag == "img" and not given.get("alt"):
            self.images.append(str(given.get("src")))


def links(library: Library, page: dict[str, Any]) -> list[str]:
    """Links that lead nowhere in the studio, and pictures without words."""
    parser = _Links()
    parser.feed(page["html"])
    faults = [f"picture {name} has no text alternative" for name in parser.images]
    for target in parser.targets:
        if target.startswith("#"):
            good = target[1:] in parser.ids
        elif target.startswith("/learn/"):
            good = target.removeprefix("/learn/").partition("#")[0] in library.lessons
        else:
            good = target.startswith(("https://", "/today", "/workbench", "/learn"))
        if not good:
            faults.append(f"link to {target} leads nowhere")
    return faults


def wants(page: dict[str, Any]) -> list[str]:
    """What a lesson must have: a figure, a question that can be answered, words for its figures, a bounded size."""
    faults = []
    if not page["figures"]:
        faults.append("has no figure")
    if not page["questions"]:
        faults.append("asks nothing")
    for question in page["questions"]:
        if question["answer"] > len(question["options"]):
            faults.append(f"{question['id']}: answer {question['answer']} of {len(question['options'])} options")
    if len({figure["name"] for figure in page["figures"]}) < len(page["figures"]):
        faults.append("shows a figure twice")
    if len(page["html"]) > MOST_BYTES:
        faults.append(f"{len(page['html']) / 1000:.0f} kB is more than {MOST_BYTES / 1000:.0f} kB")
    if len(page["lead"]) > 240:
        faults.append(f"its lead has {len(page['lead'])} characters, more than 240")
    return faults
