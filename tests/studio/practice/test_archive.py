"""Practice to take along, and back."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from bitwright.errors import InputError
from bitwright.studio.learn import record
from bitwright.studio.practice import archive, desk, hints, portable, standing, submissions, text
from bitwright.studio.store import learners, schema
from bitwright.studio.store.database import Database
from tests.studio.practice.work import NOW, submit

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ODD = "x = 'ü 🙂 \\n'\r\n\tif 1: pass\n"


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
