"""What the studio remembers of learners, the same on both engines."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bitwright.errors import InputError
from bitwright.studio import db, learner
from bitwright.studio.db import Database, open_database
from bitwright.studio.learner import Lesson, Settings

NOW = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
TODAY = NOW.date()
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def you(database: Database) -> int:
    """The number of the local profile."""
    return learner.current(database).id


# --- Profiles


def test_the_first_use_makes_you_once(database: Database) -> None:
    first = learner.current(database)
    assert first.name == "You" and abs(first.created - datetime.now(UTC)) < timedelta(minutes=1)
    assert learner.current(database) == learner.current(database, 999) == first
    assert learner.everyone(database) == [first]


def test_many_first_requests_make_you_once(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = [future.result() for future in [pool.submit(learner.current, database, None) for _ in range(24)]]
    assert len(set(found)) == 1 and len(learner.everyone(database)) == 1


def test_profiles_are_added_renamed_listed_and_removed(database: Database, you: int) -> None:
    ada = learner.add(database, "  Ada   Lovelace ")
    assert ada.name == "Ada Lovelace" and learner.current(database, ada.id) == ada
    assert learner.rename(database, ada.id, "Countess").name == "Countess"
    assert learner.rename(database, ada.id, "Countess").id == ada.id
    assert [one.name for one in learner.everyone(database)] == ["You", "Countess"]
    learner.remove(database, ada.id)
    learner.remove(database, ada.id)
    assert [one.name for one in learner.everyone(database)] == ["You"]
    assert learner.current(database, ada.id).id == you


def test_a_name_is_taken_once(database: Database, you: int) -> None:
    ada = learner.add(database, "Ada")
    with pytest.raises(InputError, match="a profile 'Ada' already"):
        learner.add(database, "Ada ")
    with pytest.raises(InputError, match="a profile 'You' already"):
        learner.rename(database, ada.id, "You")


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "a\x00b", "a\ud800b", "\x1b[31m"])
def test_a_name_that_cannot_be_shown_is_refused(database: Database, name: str) -> None:
    with pytest.raises(InputError, match="1 to 60 characters"):
        learner.add(database, name)
    assert learner.everyone(database) == []


@pytest.mark.parametrize("name", ["Ada", "李", "می‌خواهم", "👩‍💻", "'; DROP TABLE learners; --", "<b>"])
def test_any_other_name_comes_back_as_it_is(database: Database, name: str) -> None:
    assert learner.add(database, name).name == name == learner.everyone(database)[0].name


def test_a_removed_profile_takes_all_of_its_own_and_its_number_along(database: Database, you: int) -> None:
    ada = learner.add(database, "Ada").id
    for one in (you, ada):
        learner.visit(database, one, "a", "", NOW)
        learner.answer(database, one, "lesson:a", "q", 1, True, NOW)
    learner.remove(database, ada)
    with database.read() as connection:
        for table in (db.lessons, db.answers, db.days):
            assert connection.execute(sa.select(table.c.learner)).scalars().all() == [you]
    assert learner.add(database, "Bob").id > ada


def test_nothing_is_kept_for_a_profile_that_is_gone(database: Database, you: int) -> None:
    learner.remove(database, you)
    attempts: list[Any] = [
        lambda: learner.visit(database, you, "a", "", NOW),
        lambda: learner.finish(database, you, "a", NOW),
        lambda: learner.answer(database, you, "lesson:a", "q", 1, True, NOW),
        lambda: learner.rename(database, you, "Ada"),
        lambda: learner.save_settings(database, you, Settings()),
        lambda: learner.export(database, you),
        lambda: learner.restore(database, you, {"format": "bitwright-record", "version": 1}),
    ]
    for attempt in attempts:
        with pytest.raises(InputError, match="no such profile any more"):
            attempt()


# --- Settings


def test_settings_have_defaults_and_come_back(database: Database, you: int) -> None:
    assert learner.load_settings(database, you) == Settings(theme="auto", motion="auto", difficulty=True, streak=True)
    chosen = Settings(theme="dark", motion="reduced", difficulty=False, streak=False)
    learner.save_settings(database, you, chosen)
    assert learner.load_settings(database, you) == chosen
    assert learner.load_settings(database, learner.add(database, "Ada").id) == Settings()


def test_settings_cannot_be_changed_or_be_anything() -> None:
    with pytest.raises(ValidationError):
        Settings().theme = "dark"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Settings.model_validate({"theme": "pink"})
    with pytest.raises(ValidationError):
        Settings.model_validate({"colour": "dark"})


def test_settings_of_another_version_keep_what_fits(database: Database, you: int) -> None:
    kept = {"theme": "sepia", "motion": "reduced", "sound": "loud"}
    with database.begin() as connection:
        connection.execute(sa.update(db.learners).values(settings=kept))
    assert learner.load_settings(database, you) == Settings(motion="reduced")


# --- Lessons


def test_a_lesson_goes_from_todo_to_done_and_back_to_started(database: Database, you: int) -> None:
    assert learner.progress(database, you).state("a") == "todo"
    assert learner.progress(database, you).lesson("a") == Lesson("a")
    learner.visit(database, you, "a", "", NOW)
    learner.visit(database, you, "a", "the-grid", NOW + HOUR)
    assert learner.progress(database, you).lessons == {
        "a": Lesson("a", "started", "the-grid", started=NOW, visited=NOW + HOUR)
    }
    learner.finish(database, you, "a", NOW + 2 * HOUR)
    learner.finish(database, you, "a", NOW + 3 * HOUR)
    learner.visit(database, you, "a", "", NOW + 4 * HOUR)
    found = learner.progress(database, you).lesson("a")
    assert (found.state, found.section, found.finished) == ("done", "", NOW + 2 * HOUR)
    learner.unfinish(database, you, "a")
    learner.unfinish(database, you, "never-seen")
    assert learner.progress(database, you).lessons == {
        "a": Lesson("a", "started", "", started=NOW, visited=NOW + 4 * HOUR)
    }


def test_a_lesson_may_be_done_unread(database: Database, you: int) -> None:
    learner.finish(database, you, "a", NOW)
    assert learner.progress(database, you).lesson("a") == Lesson("a", "done", "", NOW, NOW, NOW)


def test_one_goes_on_where_one_left(database: Database, you: int) -> None:
    assert learner.last(database, you) is None
    learner.visit(database, you, "a", "grids", NOW)
    learner.visit(database, you, "b", "", NOW + HOUR)
    learner.visit(database, you, "a", "scales", NOW + 2 * HOUR)
    learner.visit(database, you, "b", "late", NOW + HOUR)  # a request that came late
    found = learner.last(database, you)
    assert found is not None and (found.slug, found.section) == ("a", "scales")
    assert learner.progress(database, you).lesson("b").section == "late"
    learner.visit(database, you, "b", "later", NOW)
    assert learner.progress(database, you).lesson("b").section == "late"


def test_learners_do_not_see_each_other(database: Database, you: int) -> None:
    ada = learner.add(database, "Ada").id
    learner.finish(database, you, "a", NOW)
    learner.answer(database, you, "lesson:a", "q", 1, True, NOW)
    assert learner.progress(database, ada) == learner.Progress()
    assert learner.last(database, ada) is None and learner.streak(database, ada, TODAY) == 0
    assert learner.tries(database, ada, "lesson:a") == []


@pytest.mark.parametrize("slug", ["", "a\x00", "x" * 201])
def test_what_no_engine_could_keep_is_refused(database: Database, you: int, slug: str) -> None:
    with pytest.raises(InputError, match=r"slug: .* cannot be one"):
        learner.visit(database, you, slug, "", NOW)


# --- Answers


def test_every_try_is_kept_and_the_first_counts(database: Database, you: int) -> None:
    tries = [("q1", 2, False), ("q1", 1, True), ("q2", 3, True), ("q2", 1, False), ("q3", 1, False)]
    for number, (question, choice, right) in enumerate(tries):
        learner.answer(database, you, "lesson:a", question, choice, right, NOW + number * HOUR)
    learner.answer(database, you, "today:2026-11-23", "q", 1, True, NOW)
    learner.visit(database, you, "b", "", NOW)
    found = learner.progress(database, you)
    assert (found.lesson("a").right, found.lesson("a").answered) == (1, 3)
    assert (found.right, found.answered) == (2, 4)
    assert found.state("a") == "started" and set(found.lessons) == {"a", "b"}
    assert [(t.question, t.choice, t.right) for t in learner.tries(database, you, "lesson:a")] == tries
    assert learner.tries(database, you, "lesson:a")[1].when == NOW + HOUR


def test_a_request_that_comes_twice_counts_once(database: Database, you: int) -> None:
    for _ in range(2):
        learner.answer(database, you, "lesson:a", "q", 1, True, NOW)
    assert len(learner.tries(database, you, "lesson:a")) == 1


# --- Days in a row


def test_days_in_a_row_end_today_or_yesterday(database: Database, you: int) -> None:
    assert learner.streak(database, you, TODAY) == 0
    learner.visit(database, you, "a", "", NOW - 4 * DAY)
    learner.visit(database, you, "a", "", NOW - 2 * DAY)
    learner.finish(database, you, "a", NOW - 1 * DAY)
    assert learner.streak(database, you, TODAY) == 2
    learner.answer(database, you, "today:2026-11-23", "q", 1, False, NOW)
    learner.visit(database, you, "b", "", NOW)
    assert learner.streak(database, you, TODAY) == 3
    assert learner.streak(database, you, TODAY + DAY) == 3
    assert learner.streak(database, you, TODAY + 2 * DAY) == 0
    assert learner.streak(database, you, TODAY - 2 * DAY) == 1, "what comes later does not count"


def test_a_day_is_the_one_where_the_learner_lives(database: Database, you: int) -> None:
    kiribati = timezone(timedelta(hours=14))
    learner.visit(database, you, "a", "", datetime(2026, 11, 24, 1, tzinfo=kiribati))  # 23 November in UTC
    assert learner.streak(database, you, date(2026, 11, 24)) == 1
    assert learner.streak(database, you, date(2026, 11, 23)) == 0


@given(st.sets(st.integers(-40, 0), max_size=30))
def test_days_in_a_row_are_what_counting_says(offsets: set[int]) -> None:
    end, expected = 0 if 0 in offsets else -1, 0
    while end - expected in offsets:
        expected += 1
    assert learner.in_a_row([TODAY + offset * DAY for offset in sorted(offsets, reverse=True)], TODAY) == expected


# --- Records


def studied(database: Database, one: int) -> None:
    """Some of everything."""
    learner.visit(database, one, "a", "scales", NOW + timedelta(microseconds=123_457))
    learner.visit(database, one, "b", "", NOW - DAY)
    learner.finish(database, one, "b", NOW - DAY + HOUR)
    learner.answer(database, one, "lesson:a", "q1", 2, False, NOW)
    learner.answer(database, one, "lesson:a", "q1", 1, True, NOW + HOUR)
    learner.answer(database, one, "today:2026-11-22", "q", 3, True, NOW - DAY)
    learner.save_settings(database, one, Settings(theme="dark", streak=False))


def test_a_record_is_plain_json_and_comes_back_whole(database: Database, you: int) -> None:
    studied(database, you)
    record = json.loads(json.dumps(learner.export(database, you), allow_nan=False))
    assert record["format"] == "bitwright-record" and record["version"] == 1 and record["name"] == "You"
    ada = learner.add(database, "Ada").id
    learner.restore(database, ada, record)
    assert learner.export(database, ada) == {**record, "name": "Ada"}
    assert learner.progress(database, ada) == learner.progress(database, you)
    assert learner.streak(database, ada, TODAY) == 2
    assert learner.load_settings(database, ada) == Settings(theme="dark", streak=False)


def test_a_record_goes_from_one_engine_to_another(database: Database, you: int, tmp_path: Any) -> None:
    studied(database, you)
    other = open_database(None, tmp_path / "other")
    learner.restore(other, learner.current(other).id, learner.export(database, you))
    assert learner.export(other, 1) == learner.export(database, you)
    other.close()


def test_restoring_twice_is_restoring_once(database: Database, you: int) -> None:
    studied(database, you)
    record = learner.export(database, you)
    learner.restore(database, you, record)
    learner.restore(database, you, record)
    assert learner.export(database, you) == record


def test_restoring_loses_nothing_that_was_done_since(database: Database, you: int) -> None:
    studied(database, you)
    record = learner.export(database, you)
    learner.visit(database, you, "a", "later", NOW + DAY)
    learner.finish(database, you, "a", NOW + DAY)
    learner.visit(database, you, "c", "", NOW + DAY)
    learner.answer(database, you, "lesson:c", "q", 1, True, NOW + DAY)
    learner.unfinish(database, you, "b")
    before = learner.export(database, you)
    learner.restore(database, you, record)
    after = learner.export(database, you)
    finished = record["lessons"][0]["finished"]
    assert record["lessons"][0]["slug"] == "b" and finished is not None
    before["lessons"][0]["finished"] = finished
    assert after == before


def test_an_older_record_brings_the_first_try_back(database: Database, you: int) -> None:
    learner.answer(database, you, "lesson:a", "q", 1, True, NOW)
    old = learner.add(database, "Old").id
    learner.answer(database, old, "lesson:a", "q", 2, False, NOW - DAY)
    learner.restore(database, you, learner.export(database, old))
    assert (learner.progress(database, you).right, learner.progress(database, you).answered) == (0, 1)


def broken(**changes: Any) -> Any:
    return {"format": "bitwright-record", "version": 1, "lessons": [], "answers": [], "days": [], **changes}


LESSON = {"slug": "a", "section": "", "started": "2026-11-23T08:30:00Z", "visited": "2026-11-23T08:30:00Z"}
ANSWER = {"place": "lesson:a", "question": "q", "choice": 1, "right": True, "when": "2026-11-23T08:30:00Z"}


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ([], "not a learner's record"),
        (None, "not a learner's record"),
        ({}, "not a learner's record"),
        ({"format": "certificate"}, "not a learner's record"),
        (broken(version=2), "written by a newer Bitwright"),
        (broken(version=0), "record: version: "),
        (broken(version="one"), "record: version: "),
        (broken(extra=1), "record: extra: "),
        (broken(settings={"theme": "pink"}), "record: settings.theme: "),
        (broken(days=["yesterday"]), "record: days.0: "),
        (broken(lessons=[LESSON, {**LESSON, "slug": ""}]), "record: lessons.1.slug: "),
        (broken(lessons=[LESSON, LESSON]), "record: lessons: lesson 'a' stands there twice"),
        (broken(lessons=[{**LESSON, "started": "2026-11-23T08:30:00"}]), "record: lessons.0.started: .*timezone"),
        (broken(lessons=[{**LESSON, "started": "0001-01-01T00:00:00+14:00"}]), "record: lessons.0.started: "),
        (broken(lessons=[{**LESSON, "section": "\x00"}]), "record: lessons.0.section: .*control characters"),
        (broken(answers=[{**ANSWER, "question": "\ud800"}]), "record: answers.0.question: "),
        (broken(answers=[{**ANSWER, "choice": 0}]), "record: answers.0.choice: "),
        (broken(answers=[{**ANSWER, "choice": 10**30}]), "record: answers.0.choice: "),
        (broken(answers={}), "record: answers: "),
    ],
)
def test_a_bad_record_names_what_is_wrong_and_changes_nothing(
    database: Database, you: int, data: Any, what: str
) -> None:
    studied(database, you)
    before = learner.export(database, you)
    with pytest.raises(InputError, match=what):
        learner.restore(database, you, data)
    assert learner.export(database, you) == before


def test_a_record_need_not_have_everything(database: Database, you: int) -> None:
    studied(database, you)
    before = learner.export(database, you)
    learner.restore(database, you, {"format": "bitwright-record", "version": 1})
    assert learner.export(database, you) == before
