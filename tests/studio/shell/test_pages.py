"""Pages over HTTP: what is there, what is not, and what happens when something below them breaks."""

from __future__ import annotations

import errno
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from bitwright.authoring.folder import CONTENT
from bitwright.authoring.library import Library
from bitwright.errors import InputError, ResourceError
from bitwright.studio.shell.app import create
from bitwright.studio.shell.config import Config

OWN = {"origin": "http://127.0.0.1:8737"}
LESSON = '+++\ntitle = "A lesson"\nlead = "It teaches."\n+++\nText.\n'


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """Content of two small lessons, the second broken, that compile in no time."""
    folder = tmp_path / "content"
    for slug in ("one", "two"):
        (folder / "lessons" / slug).mkdir(parents=True)
    question = '\n```question\nask = "Which?"\noptions = ["a", "b"]\nanswer = 2\nwhy = "So."\n```\n'
    (folder / "lessons" / "one" / "lesson.md").write_text(LESSON + question)
    (folder / "lessons" / "two" / "lesson.md").write_text(LESSON.replace("Text.", "[[ missing ]]") + question)
    chapter = '[[chapters]]\nslug = "c"\ntitle = "C"\nsummary = "S"\nlessons = ["one", "two"]\n'
    (folder / "chapters.toml").write_text(f'title = "Plan"\nsummary = "All."\n{chapter}')
    shutil.copy(CONTENT / "features.toml", folder)
    (folder / "collections.toml").write_text("collections = []\n")
    return folder


@pytest.fixture
def client(tmp_path: Path, content: Path) -> Iterator[TestClient]:
    app = create(Config(data=tmp_path / "data", content=content))
    with TestClient(app, base_url="http://127.0.0.1:8737", raise_server_exceptions=False) as made:
        yield made


def test_the_web_process_never_imports_torch() -> None:
    code = "import sys, bitwright.studio.shell.app; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_lesson_that_is_not_computed_yet_says_so_and_comes(client: TestClient) -> None:
    assert "bw-wait" in client.get("/learn/one").text or "<h1>A lesson</h1>" in client.get("/learn/one").text
    assert client.get("/api/ready/one").json() == {"ready": True}
    assert "<h1>A lesson</h1>" in client.get("/learn/one").text


@pytest.mark.slow
def test_a_broken_lesson_is_named_and_takes_nothing_along(client: TestClient) -> None:
    answer = client.get("/api/ready/two")
    assert answer.status_code == 400
    assert "'missing' is undefined" in answer.json()["error"]["text"]
    assert client.get("/learn").status_code == 200
    assert client.get("/api/ready/one").status_code == 200


@pytest.mark.slow
def test_a_page_that_was_cut_off_on_disk_is_computed_again(tmp_path: Path, content: Path, client: TestClient) -> None:
    client.get("/api/ready/one")
    (kept,) = (tmp_path / "data" / "lessons").glob("one.*.json")
    kept.write_text(kept.read_text()[:40])
    assert Library(content, tmp_path / "data" / "lessons").page("one") is None


def test_a_lesson_that_changes_is_another_page(tmp_path: Path, content: Path) -> None:
    library = Library(content, tmp_path)
    before = library.key("one")
    assert library.key("one") == before
    with (content / "lessons" / "one" / "lesson.md").open("a") as file:
        file.write("More.\n")
    assert library.key("one") != before


@pytest.mark.parametrize(
    "path",
    [
        "/no/such", "/learn/three", "/learn/../chapters.toml", "/static/../../db.py", "/static/%2e%2e/%2e%2e/db.py",
        "/today/feed.json", "/learn/%2e%2e%2f%2e%2e", "/api/ready/..%2f..", "/static/manifest.json",
    ],
)  # fmt: skip
def test_what_is_not_there_is_not_found(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (400, 404)
    assert "Traceback" not in answer.text and "import" not in answer.text.split("<main")[-1].split("</main>")[0]


@pytest.mark.parametrize("day", ["2026-13-01", "tomorrow", "1999-01-01", str(date.today() + timedelta(1))])
def test_an_edition_that_is_not_there_says_why(client: TestClient, day: str) -> None:
    answer = client.get(f"/today/{day}")
    assert answer.status_code == 400
    assert "today" in answer.text or "date" in answer.text


@pytest.mark.slow
def test_progress_is_kept_and_shown(client: TestClient) -> None:
    client.get("/api/ready/one")
    assert client.post("/api/progress", json={"slug": "one", "section": "s"}, headers=OWN).status_code == 204
    assert 'aria-label="begun"' in client.get("/learn").text
    assert client.post("/learn/one/done", data={"done": "yes"}, headers=OWN, follow_redirects=False).status_code == 303
    assert "1 of 2 lessons done" in client.get("/learn").text
    client.post("/learn/one/done", data={"done": "no"}, headers=OWN)
    assert "0 of 2 lessons done" in client.get("/learn").text


@pytest.mark.parametrize(
    "body", [{}, {"slug": "three"}, {"slug": "one", "x": 1}, {"slug": 3}, {"slug": "one", "section": "x" * 300}, []]
)
def test_progress_that_cannot_be_is_refused(client: TestClient, body: object) -> None:
    answer = client.post("/api/progress", json=body, headers=OWN)
    assert answer.status_code == 400
    assert answer.json()["error"]["text"]


@pytest.mark.slow
def test_an_answer_is_judged_here_and_not_believed(client: TestClient) -> None:
    client.get("/api/ready/one")
    given = {"place": "lesson:one", "question": "question-1", "choice": 2}
    assert client.post("/api/answers", json=given, headers=OWN).json() == {"right": True}
    assert client.post("/api/answers", json=given | {"choice": 1}, headers=OWN).json() == {"right": False}
    for wrong in ({"place": "lesson:two"}, {"question": "question-9"}, {"place": "../x"}, {"choice": 0}):
        assert client.post("/api/answers", json=given | wrong, headers=OWN).status_code == 400


def test_a_record_goes_out_and_comes_back(client: TestClient) -> None:
    client.post("/api/progress", json={"slug": "one"}, headers=OWN)
    record = client.get("/settings/record.json")
    assert record.headers["content-disposition"].startswith("attachment")
    client.post("/settings/profiles", data={"name": "Ada"}, headers=OWN)
    assert 'aria-label="begun"' not in client.get("/learn").text
    sent = client.post("/settings/record", files={"record": ("r.json", record.content)}, headers=OWN)
    assert sent.status_code == 200
    assert 'aria-label="begun"' in client.get("/learn").text
    bad = client.post("/settings/record", files={"record": ("r.json", b"{")}, headers=OWN)
    assert bad.status_code == 400 and "not JSON" in bad.text


@pytest.mark.slow
def test_a_locked_database_is_said_and_nothing_is_lost(client: TestClient, tmp_path: Path) -> None:
    client.post("/api/progress", json={"slug": "one"}, headers=OWN)
    other = sqlite3.connect(tmp_path / "data" / "studio.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        assert client.get("/learn").status_code == 200  # what is there can still be read
        answer = client.post("/api/progress", json={"slug": "one", "section": "s"}, headers=OWN)
        assert answer.status_code == 503
        assert "locked" in answer.json()["error"]["text"]
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert client.post("/api/progress", json={"slug": "one", "section": "s"}, headers=OWN).status_code == 204


def test_a_full_disk_is_said_in_words(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "studio.db")

    monkeypatch.setattr("bitwright.studio.learn.record.visit", full)
    answer = client.post("/api/progress", json={"slug": "one"}, headers=OWN)
    assert answer.status_code == 507
    assert answer.json()["error"]["text"] == "The disk is full: studio.db."


def test_a_corrupt_database_stops_the_start_with_one_line(tmp_path: Path, content: Path) -> None:
    data = tmp_path / "bad"
    data.mkdir()
    (data / "studio.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises((ResourceError, InputError), match=r"studio\.db"):
        create(Config(data=data, content=content))


def test_the_palette_knows_every_lesson(client: TestClient) -> None:
    entries = client.get("/api/palette").json()
    assert {e["href"] for e in entries if e["kind"] == "lesson"} == {"/learn/one", "/learn/two"}


def test_feeds_name_this_studio(client: TestClient) -> None:
    answer = client.get("/today/feed.atom")
    assert answer.headers["content-type"].startswith("application/atom+xml")
    assert f"http://127.0.0.1:8737/today/{date.today()}" in answer.text


def test_settings_that_are_none_are_refused(client: TestClient) -> None:
    wrong = client.post("/settings", data={"theme": "pink"}, headers=OWN)
    assert wrong.status_code == 400
    given = {"theme": "dark", "motion": "reduced", "difficulty": "no", "streak": "no"}
    assert client.post("/settings", data=given, headers=OWN).status_code == 200
    page = client.get("/learn").text
    assert 'data-theme="dark"' in page and 'data-motion="reduced"' in page
    assert json.loads(client.get("/settings/record.json").text)["settings"]["streak"] is False
