"""Drafts, notes and tests of one's own, the same on both engines."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bitwright.errors import InputError
from bitwright.studio.practice import desk, hints, standing, submissions, text
from bitwright.studio.store import jobs, learners
from bitwright.studio.store.database import Database
from tests.studio.practice.work import NOW, result

ODD = "x = 'ü 🙂 \\n'\r\n\tif 1: pass\n"


def test_a_draft_is_kept_and_dropped(database: Database, you: int) -> None:
    assert desk.draft(database, you, "a") is None
    desk.keep_draft(database, you, "a", "x", NOW)
    desk.keep_draft(database, you, "a", ODD, NOW)
    assert desk.draft(database, you, "a") == ODD and desk.draft(database, you, "b") is None
    assert standing.standings(database, you) == {"a": standing.Standing("tried")}
    desk.drop_draft(database, you, "a")
    desk.drop_draft(database, you, "a")
    assert desk.draft(database, you, "a") is None and standing.standings(database, you) == {}


def test_a_note_is_kept_and_an_empty_one_forgotten(database: Database, you: int) -> None:
    desk.keep_note(database, you, "a", ODD, NOW)
    assert desk.note(database, you, "a") == ODD
    desk.keep_note(database, you, "a", "", NOW)
    assert desk.note(database, you, "a") == ""


def test_own_tests_have_numbers(database: Database, you: int) -> None:
    first = desk.add_own(database, you, "a", "mine", "[1]")
    second = desk.add_own(database, you, "a", "mine", "[2]")
    assert [one["id"] for one in desk.own(database, you, "a")] == [first, second]
    assert desk.remove_own(database, you, "a", first) and not desk.remove_own(database, you, "a", first)
    assert not desk.remove_own(database, you, "b", second) and not desk.remove_own(database, you, "a", 2**40)
    for i in range(desk.MOST_OWN - 1):
        desk.add_own(database, you, "a", f"n{i}", "1")
    with pytest.raises(InputError, match="already"):
        desk.add_own(database, you, "a", "more", "1")


@pytest.mark.parametrize("bad", ["a\0b", "\ud800", "x" * (text.CODE + 1), "ü" * (text.CODE // 2 + 1)])
def test_what_cannot_be_kept_is_refused(database: Database, you: int, bad: str) -> None:
    with pytest.raises(InputError):
        desk.keep_draft(database, you, "a", bad, NOW)
    with pytest.raises(InputError):
        submissions.submit(database, you, "a", bad, NOW)
    assert jobs.list(database) == ()


def test_nothing_is_kept_for_a_learner_who_is_gone(database: Database, you: int) -> None:
    id, job = submissions.submit(database, you, "a", "x", NOW, "me", 60.0)
    learners.remove(database, you)
    assert submissions.judged(database, id, job, "me", result("AC"), NOW.date())
    assert submissions.get(database, id) is None
    works: list[Callable[[], object]] = [
        lambda: desk.keep_draft(database, you, "a", "x", NOW),
        lambda: submissions.submit(database, you, "a", "x", NOW),
        lambda: desk.add_own(database, you, "a", "n", "1"),
        lambda: hints.see(database, you, "a", 1, NOW),
    ]
    for work in works:
        with pytest.raises(InputError):
            work()
