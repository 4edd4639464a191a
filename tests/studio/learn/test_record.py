"""What the studio remembers of lessons, the same on both engines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bitwright.errors import InputError
from bitwright.studio.learn import record
from bitwright.studio.learn.record import Lesson
from bitwright.studio.store import days, learners
from bitwright.studio.store.database import Database

NOW = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
TODAY = NOW.date()
HOUR = timedelta(hours=1)


def test_a_lesson_goes_from_todo_to_done_and_back_to_started(database: Database, you: int) -> None:
    assert record.progress(database, you).state("a") == "todo"
    assert record.progress(database, you).lesson("a") == Lesson("a")
    record.visit(database, you, "a", "", NOW)
    record.visit(database, you, "a", "the-grid", NOW + HOUR)
    assert record.progress(database, you).lessons == {
        "a": Lesson("a", "started", "the-grid", started=NOW, visited=NOW + HOUR)
    }
    record.finish(database, you, "a", NOW + 2 * HOUR)
    record.finish(database, you, "a", NOW + 3 * HOUR)
    record.visit(database, you, "a", "", NOW + 4 * HOUR)
    found = record.progress(database, you).lesson("a")
    assert (found.state, found.section, found.finished) == ("done", "", NOW + 2 * HOUR)
    record.unfinish(database, you, "a")
    record.unfinish(database, you, "never-seen")
    assert record.progress(database, you).lessons == {
        "a": Lesson("a", "started", "", started=NOW, visited=NOW + 4 * HOUR)
    }


def test_a_lesson_may_be_done_unread(database: Database, you: int) -> None:
    record.finish(database, you, "a", NOW)
    assert record.progress(database, you).lesson("a") == Lesson("a", "done", "", NOW, NOW, NOW)


def test_one_goes_on_where_one_left(database: Database, you: int) -> None:
    assert record.last(database, you) is None
    record.visit(database, you, "a", "grids", NOW)
    record.visit(database, you, "b", "", NOW + HOUR)
    record.visit(database, you, "a", "scales", NOW + 2 * HOUR)
    record.visit(database, you, "b", "late", NOW + HOUR)  # a request that came late
    found = record.last(database, you)
    assert found is not None and (found.slug, found.section) == ("a", "scales")
    assert record.progress(database, you).lesson("b").section == "late"
    record.visit(database, you, "b", "later", NOW)
    assert record.progress(database, you).lesson("b").section == "late"


def test_learners_do_not_see_each_other(database: Database, you: int) -> None:
    ada = learners.add(database, "Ada").id
    record.finish(database, you, "a", NOW)
    record.answer(database, you, "lesson:a", "q", 1, True, NOW)
    assert record.progress(database, ada) == record.Progress()
    assert record.last(database, ada) is None and days.streak(database, ada, TODAY) == 0
    assert record.tries(database, ada, "lesson:a") == []


@pytest.mark.parametrize("slug", ["", "a\x00", "x" * 201])
def test_what_no_engine_could_keep_is_refused(database: Database, you: int, slug: str) -> None:
    with pytest.raises(InputError, match=r"slug: .* cannot be one"):
        record.visit(database, you, slug, "", NOW)


def test_every_try_is_kept_and_the_first_counts(database: Database, you: int) -> None:
    tries = [("q1", 2, False), ("q1", 1, True), ("q2", 3, True), ("q2", 1, False), ("q3", 1, False)]
    for number, (question, choice, right) in enumerate(tries):
        record.answer(database, you, "lesson:a", question, choice, right, NOW + number * HOUR)
    record.answer(database, you, "today:2026-11-23", "q", 1, True, NOW)
    record.visit(database, you, "b", "", NOW)
    found = record.progress(database, you)
    assert (found.lesson("a").right, found.lesson("a").answered) == (1, 3)
    assert (found.right, found.answered) == (2, 4)
    assert found.state("a") == "started" and set(found.lessons) == {"a", "b"}
    assert [(t.question, t.choice, t.right) for t in record.tries(database, you, "lesson:a")] == tries
    assert record.tries(database, you, "lesson:a")[1].when == NOW + HOUR


def test_a_request_that_comes_twice_counts_once(database: Database, you: int) -> None:
    for _ in range(2):
        record.answer(database, you, "lesson:a", "q", 1, True, NOW)
    assert len(record.tries(database, you, "lesson:a")) == 1
