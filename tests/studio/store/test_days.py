"""Days in a row, the same on both engines."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from bitwright.studio.learn import record
from bitwright.studio.store import days
from bitwright.studio.store.database import Database

NOW = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
TODAY = NOW.date()
DAY = timedelta(days=1)


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
