"""What is remembered of practice, on both engines: drafts, notes, tests, hints, submissions, reviews; taking along."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fsrs import Rating

from bitwright.errors import InputError
from bitwright.studio.learn import record
from bitwright.studio.practice import archive, desk, hints, portable, reviews, standing, submissions, text
from bitwright.studio.practice.ranking import ordered
from bitwright.studio.store import days, jobs, learners, schema
from bitwright.studio.store.database import Database

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ODD = "x = 'ü 🙂 \\n'\r\n\tif 1: pass\n"


@pytest.fixture
def you(database: Database) -> int:
    return learners.current(database).id


def result(verdict: str) -> dict[str, Any]:
    return {
        "verdict": verdict, "words": "w", "sentence": f"It is {verdict}", "cases": [{"cpu": float("nan")}], "total": 3,
        "cpu": 0.5, "memory": 1000, "tier": "A", "reason": "", "line": 0, "growth": None,
    }  # fmt: skip


def submit(database: Database, you: int, verdict: str, when: datetime, slug: str = "a", code: str = "x") -> int:
    id, job = submissions.submit(database, you, slug, code, when, "me", 60.0)
    assert submissions.judged(database, id, job, "me", result(verdict), when.date())
    return id


# --- Drafts, notes, tests


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


# --- Hints


def test_hints_come_in_order_and_the_approach_is_free_once_solved(database: Database, you: int) -> None:
    for number in (2, 4, 0, 5, -1):
        with pytest.raises(InputError):
            hints.see(database, you, "a", number, NOW)
    for number in (1, 1, 2, 3, 4):
        hints.see(database, you, "a", number, NOW)
    assert hints.seen(database, you, "a") == [1, 2, 3, 4]
    submit(database, you, "AC", NOW, "b")
    hints.see(database, you, "b", 4, NOW)
    assert hints.seen(database, you, "b") == []


# --- Submissions


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


# --- Reviews


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


# --- The leaderboard


def test_rows_are_in_pareto_order() -> None:
    def row(name: str, quality: float, bits: float) -> dict[str, Any]:
        return {"name": name, "quality": quality, "bits": bits}

    rows = [row("a", 10, 4), row("a", 9, 4), row("b", 8, 2), row("c", 7, 3), row("b", 8, 2), row("d", 6, 5)]
    found = [(one["rank"], one["name"], one["bits"]) for one in ordered(rows)]
    assert found == [(1, "b", 2), (1, "a", 4), (2, "c", 3), (3, "d", 5)]
    assert ordered([]) == []


# --- Taking along


def everything(database: Database, you: int) -> portable.Practice:
    record.finish(database, you, "lesson", NOW)
    desk.keep_draft(database, you, "a", ODD, NOW)
    desk.keep_note(database, you, "a", ODD, NOW)
    desk.add_own(database, you, "a", "mine", "[1]\n[2]")
    submit(database, you, "WA", NOW, code=ODD)
    hints.see(database, you, "a", 1, NOW + HOUR)
    submit(database, you, "AC", NOW + 2 * HOUR, code="right")
    submit(database, you, "AC", NOW + 3 * HOUR, "solved-only", "fine")
    submissions.submit(database, you, "waits", "x", NOW)
    return portable.gather(database, you)


def same(a: portable.Practice, b: portable.Practice) -> bool:
    return {**a.model_dump(), "learner": None} == {**b.model_dump(), "learner": None}


def test_export_and_import_are_lossless(database: Database, you: int, tmp_path: Path) -> None:
    told = everything(database, you)
    assert set(told.problems) == {"a", "solved-only"} and len(told.problems["a"].submissions) == 2
    ways: list[Callable[[int], dict[str, int]]] = [
        lambda who: portable.restore(database, who, archive.read(archive.to_zip(told))),
        lambda who: portable.restore(database, who, archive.read(told.model_dump_json().encode())),
        lambda who: archive.import_from(database, who, tmp_path / "out"),
    ]
    assert archive.export_to(database, you, tmp_path / "out") == 6
    assert (tmp_path / "out" / "a" / "solution.py").read_bytes() == ODD.encode()
    assert (tmp_path / "out" / "solved-only" / "solution.py").read_text() == "fine"
    for i, way in enumerate(ways):
        who = learners.add(database, f"Ada {i}").id
        assert way(who) == {"problems": 2, "submissions": 3, "notes": 1, "drafts": 1, "own": 1}
        assert same(portable.gather(database, who), told)
        assert record.progress(database, who).state("lesson") == "done"
        assert way(who) == {"problems": 0, "submissions": 0, "notes": 0, "drafts": 0, "own": 0}
        assert same(portable.gather(database, who), told)
    assert same(portable.gather(database, you), told)


def test_what_was_changed_by_hand_is_of_now(database: Database, you: int, tmp_path: Path) -> None:
    everything(database, you)
    archive.export_to(database, you, tmp_path)
    (tmp_path / "a" / "notes.md").write_text("better")
    (tmp_path / "solved-only" / "solution.py").write_text("finer")
    (tmp_path / "README.txt").write_text("mine")
    assert archive.import_from(database, you, tmp_path)["notes"] == 1
    assert desk.note(database, you, "a") == "better" and desk.draft(database, you, "a") == ODD
    assert desk.draft(database, you, "solved-only") == "finer"


def test_the_later_of_two_stays(database: Database, you: int) -> None:
    told = everything(database, you)
    desk.keep_note(database, you, "a", "newer", NOW + DAY)
    portable.restore(database, you, told)
    assert desk.note(database, you, "a") == "newer"


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


GOOD = json.dumps({"format": "bitwright-practice", "version": 1}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"PK", b"PK\x03\x04" + b"x" * 50, b"[]", b"{}", b'{"format": "bitwright-practice", "version": 2}',
        zipped({}), zipped({"record.json": b"1"}), zipped({"record.json": b"\xff"}),
        zipped({"record.json": GOOD, "../a/notes.md": b""}), zipped({"record.json": GOOD, "/etc/notes.md": b""}),
        zipped({"record.json": GOOD, "a/../b/notes.md": b""}), zipped({"record.json": GOOD, "a/other.py": b""}),
        zipped({"record.json": GOOD, "A/notes.md": b""}), zipped({"record.json": GOOD, "a\\notes.md": b""}),
        zipped({"record.json": GOOD, "a/submissions.json": b"{}"}),
        zipped({"record.json": GOOD, "a/submissions.json": b"[1]"}),
        zipped({"record.json": GOOD, "a/solution.py": b"x" * (text.CODE + 1)}),
        zipped({"record.json": GOOD, "a/solution.py": b"\0"}),
        GOOD[:-1] + b', "problems": {"../x": {}}}',
        GOOD[:-1] + b', "problems": {"a": {"card": {"state": {}, "due": "2026-01-01"}}}}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_export_is_refused(database: Database, you: int, data: bytes) -> None:
    with pytest.raises(InputError):
        portable.restore(database, you, archive.read(data))
    assert standing.standings(database, you) == {}
    with database.read() as connection:
        assert connection.execute(sa.select(schema.notes)).all() == []


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST", 1 << 20)
    with pytest.raises(InputError, match="larger than"):
        archive.from_zip(zipped({"record.json": GOOD, "a/notes.md": b"x" * (2 << 20)}))


def test_a_zip_whose_files_are_in_one_folder_is_taken() -> None:
    assert archive.from_zip(zipped({"mine/record.json": GOOD, "mine/a/notes.md": b"n"})).problems["a"].note
