"""Submissions and their verdicts, the same on both engines."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bitwright.errors import InputError
from bitwright.studio.practice import standing, submissions
from bitwright.studio.store import days, jobs, learners
from bitwright.studio.store.database import Database
from tests.studio.practice.work import NOW, result, submit

HOUR = timedelta(hours=1)
ODD = "x = 'ü 🙂 \\n'\r\n\tif 1: pass\n"


def test_a_submission_is_there_before_it_is_judged(database: Database, you: int) -> None:
    id, job = submissions.submit(database, you, "a", ODD, NOW)
    found = submissions.get(database, id)
    assert found is not None and (found.code, found.verdict, found.counted, found.moment) == (ODD, None, False, NOW)
    kept = jobs.get(database, job)
    assert kept is not None and (kept.state, kept.payload["submission"]) == ("waiting", id)
    assert standing.standings(database, you)["a"].state == "todo"


def test_a_verdict_and_the_end_of_its_job_are_one(database: Database, you: int) -> None:
    id, job = submissions.submit(database, you, "a", "x", NOW, "me", 60.0)
    assert not submissions.judged(database, id, job, "other", result("WA"), NOW.date())
    assert submissions.get(database, id).verdict is None  # type: ignore[union-attr]
    assert submissions.judged(database, id, job, "me", result("AC"), NOW.date())
    assert not submissions.judged(database, id, job, "me", result("WA"), NOW.date())
    found = submissions.get(database, id)
    assert found is not None and (found.verdict, found.counted, found.cpu) == ("AC", True, 0.5)
    assert found.result is not None and found.result["cases"] == [{"cpu": None}]
    assert jobs.get(database, job).state == "done"  # type: ignore[union-attr]
    assert days.streak(database, you, NOW.date()) == 1
    assert submissions.listed(database, you, "a")[0]["sentence"] == "It is AC"


def test_our_fault_is_never_counted(database: Database, you: int) -> None:
    submit(database, you, "IE", NOW)
    assert standing.standings(database, you) == {"a": standing.Standing("todo")}
    assert days.streak(database, you, NOW.date()) == 0
    submit(database, you, "AC", NOW + HOUR)
    found = standing.standings(database, you)["a"]
    assert (found.state, found.tries) == ("solved", 1) and found.due is not None
    assert (found.due - NOW.date()).days > 5, "Easy: our fault is no failure"


def test_judging_that_dies_each_time_is_our_fault(database: Database, you: int) -> None:
    id, job = submissions.submit(database, you, "a", "x", NOW, "me", 60.0)
    assert submissions.settle(database) == 0
    assert jobs.fail(database, job, "me", {"text": "no"})
    assert submissions.settle(database) == 1 and submissions.settle(database) == 0
    found = submissions.get(database, id)
    assert found is not None and (found.verdict, found.counted) == ("IE", False)


def test_a_submission_of_somebody_else_is_not_shown(database: Database, you: int) -> None:
    ada = learners.add(database, "Ada").id
    id = submit(database, ada, "AC", NOW)
    for who, slug in ((you, "a"), (ada, "b")):
        with pytest.raises(InputError, match="no such submission"):
            submissions.submission(database, who, slug, id)
    assert standing.standings(database, you) == {}
