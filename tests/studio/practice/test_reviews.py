"""When a solved problem comes back."""

from __future__ import annotations

import json
from datetime import date, timedelta

import pytest
from fsrs import Rating

from bitwright.studio.practice import hints, reviews, standing
from bitwright.studio.store import learners
from bitwright.studio.store.database import Database
from tests.studio.practice.work import NOW, submit

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def due(database: Database, you: int) -> int:
    """Days from NOW."""
    return (reviews.due(database, you)["a"] - NOW.date()).days


@pytest.mark.parametrize(
    ("first", "failures", "hints", "grade"),
    [
        (True, 0, 0, Rating.Easy), (False, 0, 0, Rating.Good), (True, 1, 0, Rating.Hard), (False, 3, 2, Rating.Hard),
        (True, 0, 1, Rating.Hard), (False, 0, 4, Rating.Hard),
    ],
)  # fmt: skip
def test_the_rule(first: bool, failures: int, hints: int, grade: Rating) -> None:
    assert reviews.grade(first, failures, hints) is grade


def test_reviews_are_the_same_every_time() -> None:
    def history() -> list[date]:
        state, day, found = None, NOW.date(), []
        for grade in (Rating.Easy, Rating.Good, Rating.Hard, Rating.Again, Rating.Good, Rating.Good):
            state, day = reviews.review(state, grade, day)
            found.append(day)
        return found

    days = history()
    assert days == history() == sorted(set(days)) and days[0] > NOW.date()
    json.dumps(reviews.review(None, Rating.Good, NOW.date())[0], allow_nan=False)


def test_first_try_hints_and_failures_decide_when_it_comes_back(database: Database, you: int) -> None:
    ada, bob = learners.add(database, "Ada").id, learners.add(database, "Bob").id
    submit(database, you, "AC", NOW)
    submit(database, ada, "WA", NOW)
    submit(database, ada, "AC", NOW + HOUR)
    hints.see(database, bob, "a", 1, NOW)
    submit(database, bob, "AC", NOW + HOUR)
    easy, failed, hinted = (due(database, who) for who in (you, ada, bob))
    assert easy > failed == hinted >= 1


def test_before_its_day_it_is_only_practice(database: Database, you: int) -> None:
    submit(database, you, "AC", NOW)
    first = due(database, you)
    submit(database, you, "WA", NOW + HOUR)
    submit(database, you, "AC", NOW + 2 * HOUR)
    assert due(database, you) == first
    submit(database, you, "AC", NOW + first * DAY)
    assert due(database, you) > 2 * first


def test_failed_then_given_up_comes_back_soon(database: Database, you: int) -> None:
    submit(database, you, "WA", NOW)
    for number in (1, 2, 3):
        hints.see(database, you, "a", number, NOW + HOUR)
    assert reviews.due(database, you) == {}
    hints.see(database, you, "a", 4, NOW + 2 * HOUR)
    assert due(database, you) == 1
    assert standing.standings(database, you)["a"].state == "tried"
