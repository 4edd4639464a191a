"""The daily edition: pure, the same for everyone, and every item gets its turn."""

from __future__ import annotations

import email
import email.policy
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from bitwright.authoring.folder import CONTENT
from bitwright.authoring.library import Library
from bitwright.cli import app
from bitwright.errors import InputError
from bitwright.studio.today.edition import FIRST, day_of, edition, problem_of
from bitwright.studio.today.feed import FEED, atom, rss
from bitwright.studio.today.letter import to_markdown
from tests.studio.problems import write

DAY = date(2026, 11, 23)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(CONTENT, tmp_path_factory.mktemp("cache"))


def test_an_edition_depends_on_nothing_but_content_and_date(library: Library, tmp_path: Path) -> None:
    assert edition(library, DAY) == edition(Library(CONTENT, tmp_path), DAY)


def test_every_lesson_and_feature_comes_once_a_round(library: Library) -> None:
    for kind, items in (("lesson", library.lessons), ("feature", tuple(library.features))):
        seen = Counter(getattr(edition(library, FIRST + timedelta(i)), kind) for i in range(len(items)))
        assert seen == Counter(items)


def test_the_question_is_not_from_the_lesson_of_the_day(library: Library) -> None:
    for i in range(200):
        chosen = edition(library, FIRST + timedelta(i))
        assert chosen.question[0] != chosen.lesson
        assert chosen.question in library.questions


@pytest.mark.parametrize("text", ["2026-13-01", "2026-02-30", "yesterday", "20261123", "2026-11-23/..", "٢٠٢٦-١١-٢٣"])
def test_a_date_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a date"):
        day_of(text)


def test_there_is_none_before_the_first(library: Library) -> None:
    with pytest.raises(InputError, match="no edition"):
        edition(library, FIRST - timedelta(1))


def test_feeds_hold_the_last_editions(library: Library) -> None:
    base = "http://127.0.0.1:8737"
    feed = ElementTree.fromstring(atom(library, DAY, base))
    name = {"a": "http://www.w3.org/2005/Atom"}
    entries = feed.findall("a:entry", name)
    assert len(entries) == FEED
    link = entries[0].find("a:link", name)
    assert link is not None
    assert link.get("href") == f"{base}/today/{DAY}"
    assert len({e.findtext("a:id", namespaces=name) for e in entries}) == FEED
    channel = ElementTree.fromstring(rss(library, DAY, base)).find("channel")
    assert channel is not None
    assert channel.findtext("item/pubDate", "").startswith("Mon, 23 Nov 2026 00:00:00 ")


@pytest.mark.parametrize(
    ("zone", "day", "instant"),
    [
        ("Asia/Tokyo", date(2026, 11, 23), "2026-11-22T15:00:00+00:00"),
        ("America/Los_Angeles", date(2026, 11, 23), "2026-11-23T08:00:00+00:00"),
        ("Europe/Berlin", date(2027, 7, 1), "2027-06-30T22:00:00+00:00"),  # summer time
        ("UTC", date(2026, 11, 23), "2026-11-23T00:00:00+00:00"),
    ],
)
def test_a_feed_tells_the_instant_at_which_an_edition_appears(
    zone: str, day: date, instant: str, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In no time zone is it in the future, and none shows the day before: a date is no instant of UTC."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        feed = ElementTree.fromstring(atom(library, day, ""))
        channel = ElementTree.fromstring(rss(library, day, ""))
    finally:
        monkeypatch.undo()
        time.tzset()
    name = {"a": "http://www.w3.org/2005/Atom"}
    texts = [feed.findtext("a:updated", "", name), feed.findtext("a:entry/a:updated", "", name)]
    found = {datetime.fromisoformat(text).astimezone(UTC).isoformat() for text in texts}
    found.add(parsedate_to_datetime(channel.findtext("channel/item/pubDate", "")).astimezone(UTC).isoformat())
    assert found == {instant}


@pytest.mark.slow
def test_the_command_writes_markdown_html_and_a_mail(tmp_path: Path) -> None:
    def run(*words: str) -> bytes:
        result = CliRunner().invoke(app, ["edition", "--date", str(DAY), "--data", str(tmp_path), *words])
        assert result.exit_code == 0, result.output
        return result.stdout_bytes

    text = run("--format", "md").decode()
    assert text.startswith("# Today in Bitwright: Monday, 23 November 2026")
    assert "[[" not in text and "## Problem of the day" in text
    assert run("--format", "md").decode() == text
    page = run("--format", "html").decode()
    assert page.startswith("<!doctype html>") and "<script" not in page and "src=" not in page
    mail = email.message_from_bytes(run("--format", "eml"), policy=email.policy.default)
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    plain = mail.get_body(("plain",))
    assert plain is not None
    assert plain.get_content().strip() == text.strip()


def test_the_command_writes_what_the_name_ends_in_or_says_that_it_contradicts(tmp_path: Path) -> None:
    words = ["edition", "--format", "md", "-o", str(tmp_path / "today.eml"), "--data", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and "contradicts -o today.eml" in result.output
    assert not list(tmp_path.iterdir())


def test_the_command_refuses_an_unknown_form(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["edition", "--format", "pdf", "--data", str(tmp_path)])
    assert result.exit_code == 2 and "Choose md, html or eml" in result.output


def test_commands_of_features_are_ones_the_program_has(library: Library) -> None:
    import shlex

    from typer.main import get_command

    group = get_command(app)
    for slug, feature in library.features.items():
        words = shlex.split(feature["command"])
        assert words[0] == "bitwright", slug
        command = group.commands[words[1]]  # type: ignore[attr-defined]
        command.make_context(words[1], words[2:])  # raises for an option or value that it does not know


# --- The problem of the day


def test_the_problem_of_the_day_is_the_same_for_everyone_and_comes_once_a_round(tmp_path: Path) -> None:
    content = Library(write(tmp_path / "content"), tmp_path)
    assert edition(content, DAY) == edition(Library(content.folder, tmp_path / "other"), DAY)
    slugs = content.shelf.slugs
    seen = Counter(edition(content, FIRST + timedelta(i)).problem for i in range(len(slugs)))
    assert seen == Counter(slugs)


def test_feeds_name_the_problem_of_the_day(tmp_path: Path) -> None:
    content = Library(write(tmp_path / "content"), tmp_path)
    titles = {"double": "Double it", "fewer-bits": "Fewer bits"}
    summaries = [
        entry.findtext("{*}summary") or ""
        for entry in ElementTree.fromstring(atom(content, DAY, "x")).findall("{*}entry")
    ]
    for i, summary in enumerate(summaries):
        slug = edition(content, DAY - timedelta(i)).problem
        assert (f"Problem: {titles[slug]}." in summary) if slug in titles else ("Problem:" not in summary)


def test_markdown_has_the_problem_where_there_is_one(tmp_path: Path) -> None:
    from bitwright.authoring.compile import compile_lesson

    content = Library(write(tmp_path / "content"), tmp_path)
    for slug in content.lessons:
        content.keep(slug, compile_lesson(content.lesson_folder(slug)))
    days = {edition(content, FIRST + timedelta(i)).problem: FIRST + timedelta(i) for i in range(9)}
    text = to_markdown(content, edition(content, days["double"]))
    assert "## Problem of the day: Double it" in text and "/practice/double (5 minutes)" in text and "[[" not in text
    assert "Which?" in text
    assert "Problem of the day" not in to_markdown(content, edition(content, days["broken"]))
    (content.folder / "collections.toml").write_text("collections = []\n")
    empty = Library(content.folder, tmp_path)
    assert edition(empty, DAY).problem == "" and problem_of(empty, edition(empty, DAY)) is None
    assert "Which?" in to_markdown(empty, edition(empty, DAY))
