"""Profiles, the same on both engines."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from bitwright.errors import InputError
from bitwright.studio.learn import portable, record
from bitwright.studio.store import learners, schema, settings
from bitwright.studio.store.database import Database
from bitwright.studio.store.settings import Settings

NOW = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)


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
