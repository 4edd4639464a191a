"""The last editions as a feed, Atom or RSS."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from email.utils import format_datetime
from xml.etree import ElementTree

from bitwright.authoring.library import Library
from bitwright.studio.today.edition import FIRST, Edition, edition, problem_of

FEED = 14
"""Editions in a feed."""


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


def appeared(day: date) -> datetime:
    """The instant at which the edition of a date appears: midnight where this studio runs, with its offset from UTC."""
    return datetime.combine(day, time()).astimezone()


def atom(library: Library, today: date, base: str) -> bytes:
    """The feed as Atom (RFC 4287); `base` is this studio's address without a slash at the end."""
    feed = ElementTree.Element("feed", xmlns="http://www.w3.org/2005/Atom")
    _add(feed, "title", "Today in Bitwright")
    _add(feed, "id", "tag:bitwright.invalid,2026:today")
    _add(feed, "updated", appeared(today).isoformat())
    ElementTree.SubElement(feed, "link", rel="self", href=f"{base}/today/feed.atom")
    _add(ElementTree.SubElement(feed, "author"), "name", "Bitwright")
    for chosen in recent(library, today):
        title, text = _summary(library, chosen)
        entry = ElementTree.SubElement(feed, "entry")
        _add(entry, "title", title)
        _add(entry, "id", f"tag:bitwright.invalid,2026:today/{chosen.day}")
        _add(entry, "updated", appeared(chosen.day).isoformat())
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
        _add(item, "pubDate", format_datetime(appeared(chosen.day)))
        _add(item, "description", text)
    return _xml(feed)


def _add(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text


def _xml(root: ElementTree.Element) -> bytes:
    found: bytes = ElementTree.tostring(root, "utf-8", xml_declaration=True)
    return found
