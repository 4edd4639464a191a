"""A learner's record goes out and comes back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bitwright.errors import InputError
from bitwright.studio.learn import portable, record
from bitwright.studio.store import days, learners, settings
from bitwright.studio.store.database import Database
from bitwright.studio.store.open import open_database
from bitwright.studio.store.settings import Settings

NOW = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
TODAY = NOW.date()
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


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
    kept = json.loads(json.dumps(portable.export(database, you), allow_nan=False))
    assert kept["format"] == "bitwright-record" and kept["version"] == 1 and kept["name"] == "You"
    ada = learners.add(database, "Ada").id
    portable.restore(database, ada, kept)
    assert portable.export(database, ada) == {**kept, "name": "Ada"}
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
    kept = portable.export(database, you)
    portable.restore(database, you, kept)
    portable.restore(database, you, kept)
    assert portable.export(database, you) == kept


def test_restoring_loses_nothing_that_was_done_since(database: Database, you: int) -> None:
    studied(database, you)
    kept = portable.export(database, you)
    record.visit(database, you, "a", "later", NOW + DAY)
    record.finish(database, you, "a", NOW + DAY)
    record.visit(database, you, "c", "", NOW + DAY)
    record.answer(database, you, "lesson:c", "q", 1, True, NOW + DAY)
    record.unfinish(database, you, "b")
    before = portable.export(database, you)
    portable.restore(database, you, kept)
    after = portable.export(database, you)
    finished = kept["lessons"][0]["finished"]
    assert kept["lessons"][0]["slug"] == "b" and finished is not None
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
