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
from bitwright.studio.learn import portable, record
from bitwright.studio.store import days, learners, schema, settings
from bitwright.studio.store.database import Database
from bitwright.studio.store.learners import Lesson, Settings
from bitwright.studio.store.open import open_database

NOW = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
TODAY = NOW.date()
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def you(database: Database) -> int:
    """The number of the local profile."""
    return learners.current(database).id


# --- Profiles


def test_the_first_use_makes_you_once(database: Database) -> None:
    first = learners.current(database)
    assert first.name == "You" and abs(first.created - datetime.now(UTC)) < timedelta(minutes=1)
    assert learners.current(database) == learners.current(database, 999) == first
    assert learners.everyone(database) == [first]


def test_many_first_requests_make_you_once(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = [future.result() for future in [pool.submit(learners.current, database, None) for _ in range(24)]]
    assert len(set(found)) == 1 and len(learners.everyone(database)) == 1


def test_profiles_are_added_renamed_listed_and_removed(database: Database, you: int) -> None:
    ada = learners.add(database, "  Ada   Lovelace ")
    assert ada.name == "Ada Lovelace" and learners.current(database, ada.id) == ada
    assert learners.rename(database, ada.id, "Countess").name == "Countess"
    assert learners.rename(database, ada.id, "Countess").id == ada.id
    assert [one.name for one in learners.everyone(database)] == ["You", "Countess"]
    learners.remove(database, ada.id)
    learners.remove(database, ada.id)
    assert [one.name for one in learners.everyone(database)] == ["You"]
    assert learners.current(database, ada.id).id == you


def test_a_name_is_taken_once(database: Database, you: int) -> None:
    ada = learners.add(database, "Ada")
    with pytest.raises(InputError, match="a profile 'Ada' already"):
        learners.add(database, "Ada ")
    with pytest.raises(InputError, match="a profile 'You' already"):
        learners.rename(database, ada.id, "You")


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "a\x00b", "a\ud800b", "\x1b[31m"])
def test_a_name_that_cannot_be_shown_is_refused(database: Database, name: str) -> None:
    with pytest.raises(InputError, match="1 to 60 characters"):
        learners.add(database, name)
    assert learners.everyone(database) == []


@pytest.mark.parametrize("name", ["Ada", "李", "می‌خواهم", "👩‍💻", "'; DROP TABLE learners; --", "<b>"])
def test_any_other_name_comes_back_as_it_is(database: Database, name: str) -> None:
    assert learners.add(database, name).name == name == learners.everyone(database)[0].name


def test_a_removed_profile_takes_all_of_its_own_and_its_number_along(database: Database, you: int) -> None:
    ada = learners.add(database, "Ada").id
    for one in (you, ada):
        record.visit(database, one, "a", "", NOW)
        record.answer(database, one, "lesson:a", "q", 1, True, NOW)
    learners.remove(database, ada)
    with database.read() as connection:
        for table in (schema.lessons, schema.answers, schema.days):
            assert connection.execute(sa.select(table.c.learner)).scalars().all() == [you]
    assert learners.add(database, "Bob").id > ada


def test_nothing_is_kept_for_a_profile_that_is_gone(database: Database, you: int) -> None:
    learners.remove(database, you)
    attempts: list[Any] = [
        lambda: record.visit(database, you, "a", "", NOW),
        lambda: record.finish(database, you, "a", NOW),
        lambda: record.answer(database, you, "lesson:a", "q", 1, True, NOW),
        lambda: learners.rename(database, you, "Ada"),
        lambda: settings.save(database, you, Settings()),
        lambda: portable.export(database, you),
        lambda: portable.restore(database, you, {"format": "bitwright-record", "version": 1}),
    ]
    for attempt in attempts:
        with pytest.raises(InputError, match="no such profile any more"):
            attempt()


# --- Settings


def test_settings_have_defaults_and_come_back(database: Database, you: int) -> None:
    assert settings.load(database, you) == Settings(theme="auto", motion="auto", difficulty=True, streak=True)
    chosen = Settings(theme="dark", motion="reduced", difficulty=False, streak=False)
    settings.save(database, you, chosen)
    assert settings.load(database, you) == chosen
    assert settings.load(database, learners.add(database, "Ada").id) == Settings()


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
        connection.execute(sa.update(schema.learners).values(settings=kept))
    assert settings.load(database, you) == Settings(motion="reduced")


# --- Lessons


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


# --- Answers


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


# --- Days in a row


def test_days_in_a_row_end_today_or_yesterday(database: Database, you: int) -> None:
    assert days.streak(database, you, TODAY) == 0
    record.visit(database, you, "a", "", NOW - 4 * DAY)
    record.visit(database, you, "a", "", NOW - 2 * DAY)
    record.finish(database, you, "a", NOW - 1 * DAY)
    assert days.streak(database, you, TODAY) == 2
    record.answer(database, you, "today:2026-11-23", "q", 1, False, NOW)
    record.visit(database, you, "b", "", NOW)
    assert days.streak(database, you, TODAY) == 3
    assert days.streak(database, you, TODAY + DAY) == 3
    assert days.streak(database, you, TODAY + 2 * DAY) == 0
    assert days.streak(database, you, TODAY - 2 * DAY) == 1, "what comes later does not count"


def test_a_day_is_the_one_where_the_learner_lives(database: Database, you: int) -> None:
    kiribati = timezone(timedelta(hours=14))
    record.visit(database, you, "a", "", datetime(2026, 11, 24, 1, tzinfo=kiribati))  # 23 November in UTC
    assert days.streak(database, you, date(2026, 11, 24)) == 1
    assert days.streak(database, you, date(2026, 11, 23)) == 0


@given(st.sets(st.integers(-40, 0), max_size=30))
def test_days_in_a_row_are_what_counting_says(offsets: set[int]) -> None:
    end, expected = 0 if 0 in offsets else -1, 0
    while end - expected in offsets:
        expected += 1
    assert days.in_a_row([TODAY + offset * DAY for offset in sorted(offsets, reverse=True)], TODAY) == expected


# --- Records


def studied(database: Database, one: int) -> None:
    """Some of everything."""
    record.visit(database, one, "a", "scales", NOW + timedelta(microseconds=123_457))
    record.visit(database, one, "b", "", NOW - DAY)
    record.finish(database, one, "b", NOW - DAY + HOUR)
    record.answer(database, one, "lesson:a", "q1", 2, False, NOW)
    record.answer(database, one, "lesson:a", "q1", 1, True, NOW + HOUR)
    record.answer(database, one, "today:2026-11-22", "q", 3, True, NOW - DAY)
    settings.save(database, one, Settings(theme="dark", streak=False))


def test_a_record_is_plain_json_and_comes_back_whole(database: Database, you: int) -> None:
    studied(database, you)
    record = json.loads(json.dumps(portable.export(database, you), allow_nan=False))
    assert record["format"] == "bitwright-record" and record["version"] == 1 and record["name"] == "You"
    ada = learners.add(database, "Ada").id
    portable.restore(database, ada, record)
    assert portable.export(database, ada) == {**record, "name": "Ada"}
    assert record.progress(database, ada) == record.progress(database, you)
    assert days.streak(database, ada, TODAY) == 2
    assert settings.load(database, ada) == Settings(theme="dark", streak=False)


def test_a_record_goes_from_one_engine_to_another(database: Database, you: int, tmp_path: Any) -> None:
    studied(database, you)
    other = open_database(None, tmp_path / "other")
    portable.restore(other, learners.current(other).id, portable.export(database, you))
    assert portable.export(other, 1) == portable.export(database, you)
    other.close()


def test_restoring_twice_is_restoring_once(database: Database, you: int) -> None:
    studied(database, you)
    record = portable.export(database, you)
    portable.restore(database, you, record)
    portable.restore(database, you, record)
    assert portable.export(database, you) == record


def test_restoring_loses_nothing_that_was_done_since(database: Database, you: int) -> None:
    studied(database, you)
    record = portable.export(database, you)
    record.visit(database, you, "a", "later", NOW + DAY)
    record.finish(database, you, "a", NOW + DAY)
    record.visit(database, you, "c", "", NOW + DAY)
    record.answer(database, you, "lesson:c", "q", 1, True, NOW + DAY)
    record.unfinish(database, you, "b")
    before = portable.export(database, you)
    portable.restore(database, you, record)
    after = portable.export(database, you)
    finished = record["lessons"][0]["finished"]
    assert record["lessons"][0]["slug"] == "b" and finished is not None
    before["lessons"][0]["finished"] = finished
    assert after == before


def test_an_older_record_brings_the_first_try_back(database: Database, you: int) -> None:
    record.answer(database, you, "lesson:a", "q", 1, True, NOW)
    old = learners.add(database, "Old").id
    record.answer(database, old, "lesson:a", "q", 2, False, NOW - DAY)
    portable.restore(database, you, portable.export(database, old))
    assert (record.progress(database, you).right, record.progress(database, you).answered) == (0, 1)


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
    before = portable.export(database, you)
    with pytest.raises(InputError, match=what):
        portable.restore(database, you, data)
    assert portable.export(database, you) == before


def test_a_record_need_not_have_everything(database: Database, you: int) -> None:
    studied(database, you)
    before = portable.export(database, you)
    portable.restore(database, you, {"format": "bitwright-record", "version": 1})
    assert portable.export(database, you) == before
