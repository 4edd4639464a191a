"""The daily edition: one lesson to dive into, one question, one feature; the same for everyone on a date."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any, TypeVar
from xml.etree import ElementTree

from bitwright.errors import InputError
from bitwright.judge.problem import ProblemError
from bitwright.studio.content import Library
from bitwright.studio.templates import environment

FIRST = date(2026, 1, 1)
"""No edition is older."""
FEED = 14
"""Editions in a feed."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Edition:
    """What a date brings: slugs of a lesson, a feature and a problem to practise, and a question of another lesson as
    (lesson, number from 1)."""

    day: date
    lesson: str
    question: tuple[str, int]
    feature: str
    problem: str = ""
    """Empty where no problem is written yet."""

    @property
    def title(self) -> str:
        """The date in words: Monday, 23 November 2026."""
        return f"{self.day:%A}, {self.day.day} {self.day:%B %Y}"


def edition(library: Library, day: date) -> Edition:
    """The edition of a date: a pure function of the content and the date. InputError for a date before the first."""
    if day < FIRST:
        raise InputError(f"there is no edition of {day}", where="today", fix=f"The first is of {FIRST}")
    number = (day - FIRST).days
    lesson = _turn("lesson", library.lessons, number)
    others = [pair for pair in library.questions if pair[0] != lesson]
    slugs = library.shelf.slugs
    problem = _turn("problem", slugs, number) if slugs else ""
    feature = _turn("feature", tuple(library.features), number)
    return Edition(day, lesson, _turn("question", others, number), feature, problem)


def _turn(kind: str, items: Sequence[Item], number: int) -> Item:
    """Item number `number` of an endless sequence in which every item comes once in each round, shuffled anew."""
    if not items:
        raise InputError(f"there is no {kind} to choose from", where="content", fix="Write one, or install again")
    turn, place = divmod(number, len(items))
    return sorted(items, key=lambda item: hashlib.sha256(f"{kind} {turn} {item}".encode()).digest())[place]


def day_of(text: str) -> date:
    """A date as addresses and options write it; InputError where it is none."""
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            pass  # a day that no calendar has: told below
    raise InputError(f"{text!r} is not a date", where="date", fix="Write it as 2026-11-23")


def question_of(library: Library, chosen: Edition) -> dict[str, Any]:
    """The question of an edition, compiled; InputError where its lesson has not been computed yet."""
    slug, number = chosen.question
    found: dict[str, Any] = _page(library, slug)["questions"][number - 1]
    return found


def problem_of(library: Library, chosen: Edition) -> dict[str, Any] | None:
    """The problem of an edition: slug, title, difficulty, minutes, and its statement as Markdown (`text`). None where
    there is none, or its folder cannot be read."""
    try:
        found = library.shelf.problem(chosen.problem) if chosen.problem else None
    except ProblemError:
        found = None
    if found is None:
        return None
    text = plain_text(found.statement.replace("[[ samples ]]", "")).replace("\n\n\n", "\n\n").strip()
    facts = {"slug": found.slug, "title": found.title, "difficulty": found.difficulty, "minutes": found.minutes}
    return {**facts, "text": text}


def plain_text(markdown: str) -> str:
    """Markdown without the colours that only pages show."""
    return re.sub(r":[a-z]+\[([^\]\n]+)\]", r"\1", markdown)


def recent(library: Library, today: date) -> list[Edition]:
    """The editions of a feed, the newest first."""
    days = (today - timedelta(back) for back in range(FEED))
    return [edition(library, day) for day in days if day >= FIRST]


def _summary(library: Library, chosen: Edition) -> tuple[str, str]:
    """Title and text of an edition in a feed."""
    page = library.page(chosen.lesson) or library.head(chosen.lesson)
    lead = page.get("lead", "") if "html" in page else ""
    feature = library.features[chosen.feature]
    problem = problem_of(library, chosen)
    practice = f"Problem: {problem['title']}. " if problem else ""
    return page["title"], f"{lead} {practice}Spotlight: {feature['title']}.".strip()


def atom(library: Library, today: date, base: str) -> bytes:
    """The feed as Atom (RFC 4287); `base` is this studio's address without a slash at the end."""
    feed = ElementTree.Element("feed", xmlns="http://www.w3.org/2005/Atom")
    _add(feed, "title", "Today in Bitwright")
    _add(feed, "id", "tag:bitwright.invalid,2026:today")
    _add(feed, "updated", f"{today}T00:00:00Z")
    ElementTree.SubElement(feed, "link", rel="self", href=f"{base}/today/feed.atom")
    _add(ElementTree.SubElement(feed, "author"), "name", "Bitwright")
    for chosen in recent(library, today):
        title, text = _summary(library, chosen)
        entry = ElementTree.SubElement(feed, "entry")
        _add(entry, "title", title)
        _add(entry, "id", f"tag:bitwright.invalid,2026:today/{chosen.day}")
        _add(entry, "updated", f"{chosen.day}T00:00:00Z")
        ElementTree.SubElement(entry, "link", href=f"{base}/today/{chosen.day}")
        _add(entry, "summary", text)
    return _xml(feed)


def rss(library: Library, today: date, base: str) -> bytes:
    """The feed as RSS 2.0."""
    feed = ElementTree.Element("rss", version="2.0")
    channel = ElementTree.SubElement(feed, "channel")
    _add(channel, "title", "Today in Bitwright")
    _add(channel, "link", f"{base}/today")
    _add(channel, "description", "One lesson, one problem and one feature a day.")
    for chosen in recent(library, today):
        title, text = _summary(library, chosen)
        item = ElementTree.SubElement(channel, "item")
        _add(item, "title", title)
        _add(item, "link", f"{base}/today/{chosen.day}")
        ElementTree.SubElement(item, "guid", isPermaLink="false").text = f"bitwright:today/{chosen.day}"
        _add(item, "pubDate", format_datetime(datetime.combine(chosen.day, time(), UTC)))
        _add(item, "description", text)
    return _xml(feed)


def _add(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text


def _xml(root: ElementTree.Element) -> bytes:
    found: bytes = ElementTree.tostring(root, "utf-8", xml_declaration=True)
    return found


def to_markdown(library: Library, chosen: Edition) -> str:
    """An edition as Markdown. Its lessons must be compiled (InputError otherwise)."""
    page, feature = _page(library, chosen.lesson), library.features[chosen.feature]
    return (
        f"# Today in Bitwright: {chosen.title}\n\n"
        f"## {page['title']}\n\n*{page['lead']}*\n\n{page['opening_text']}\n\n"
        f"Read on: `bitwright studio`, then /learn/{chosen.lesson} ({page['minutes']} minutes)\n\n"
        f"{_problem_text(library, chosen)}{_question_text(library, chosen)}"
        f"## Spotlight: {feature['title']}\n\n{feature['text'].strip()}\n\n    {feature['command']}\n"
    )


def _problem_text(library: Library, chosen: Edition) -> str:
    problem = problem_of(library, chosen)
    if problem is None:
        return ""
    return (
        f"## Problem of the day: {problem['title']}\n\n{problem['text']}\n\n"
        f"Solve it: `bitwright studio`, then /practice/{problem['slug']} ({problem['minutes']} minutes)\n\n"
    )


def _question_text(library: Library, chosen: Edition) -> str:
    question = question_of(library, chosen)
    text = question["text"]
    options = "\n".join(f"{i}. {option}" for i, option in enumerate(text["options"], 1))
    return f"## Question of the day\n\n{text['ask']}\n\n{options}\n\nAnswer: {question['answer']}. {text['why']}\n\n"


def to_html(library: Library, chosen: Edition) -> str:
    """An edition as one HTML page without scripts or files of its own, fit for a mail."""
    page, question = _page(library, chosen.lesson), question_of(library, chosen)
    return (
        environment()
        .get_template("mail.html")
        .render(
            edition=chosen,
            lesson=page,
            question=question,
            feature=library.features[chosen.feature],
            problem=problem_of(library, chosen),
        )
    )


def to_mail(library: Library, chosen: Edition) -> bytes:
    """An edition as a mail (RFC 5322) with a plain and an HTML part; the sender fills in From and To."""
    mail = EmailMessage()
    mail["Subject"] = f"Today in Bitwright: {_page(library, chosen.lesson)['title']}"
    mail.set_content(to_markdown(library, chosen))
    mail.add_alternative(to_html(library, chosen), subtype="html")
    return bytes(mail)


def _page(library: Library, slug: str) -> dict[str, Any]:
    page = library.page(slug)
    if page is None:
        raise InputError("has not been computed yet", where=f"lesson {slug}", fix="Open it once")
    return page
