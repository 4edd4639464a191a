"""Practice over HTTP with a real judge: pages, running, submitting, hints, guards."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from bitwright.judge import tiers
from bitwright.studio.practice.text import CODE
from bitwright.studio.shell.app import create
from bitwright.studio.shell.config import Config
from tests.studio.problems import DOUBLE, RIGHT, WRONG, write

OWN = {"origin": "http://127.0.0.1:8737"}
API = "/api/practice/double"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("practice")
    app = create(Config(data=folder / "data", content=write(folder / "content")))
    with TestClient(app, base_url="http://127.0.0.1:8737", raise_server_exceptions=False, headers=OWN) as made:
        yield made


@pytest.fixture
def fresh(client: TestClient, request: pytest.FixtureRequest) -> TestClient:
    """As a new profile."""
    client.post("/settings/profiles", data={"name": request.node.name[:60]}, follow_redirects=False)
    return client


def events(answer: Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]


def submit(client: TestClient, code: str, slug: str = "double") -> list[dict[str, Any]]:
    return events(client.post(f"/api/practice/{slug}/submit", json={"code": code}))


def page(client: TestClient) -> dict[str, Any]:
    """The JSON of the problem's page."""
    assert client.get(f"{API}/ready").json() == {"ready": True}
    text = client.get("/practice/double").text
    found: dict[str, Any] = json.loads(text.split('id="problem">')[1].split("</script>")[0])
    return found


def error(answer: Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()["error"]
    assert "Traceback" not in found["text"]
    return found


# --- Pages


def test_the_list_shows_what_is_sound(fresh: TestClient) -> None:
    text = fresh.get("/practice").text
    assert "Double it" in text and "Fewer bits" in text and "broken" not in text
    assert "0 of 2 problems solved · easy 0 of 2<" in text and "Empty" in text


def test_a_problem_page_holds_all_that_the_editor_needs(fresh: TestClient) -> None:
    found = page(fresh)
    assert found["code"] == found["starter"] == DOUBLE["starter.py"] and found["function"] == "double"
    assert found["samples"] == [
        {"name": "three", "input": "numbers = [1, 2, 3]", "expected": "[2, 4, 6]", "note": "Each on its own"}
    ]
    assert found["hints"] == {"count": 3, "seen": []} and found["own"] == [] and found["submissions"] == []
    assert (found["solved"], found["due"], found["note"], found["growth"]) == (False, None, "", None)
    assert (found["previous"], found["next"], found["hide_difficulty"]) == (None, "fewer-bits", False)
    assert found["tier"]["name"] in ("A", "B") and found["limits"] == {"cpu": 2.0, "memory": 256}
    text = fresh.get("/practice/double").text
    assert "katex" in text and "[[ samples ]]" not in text.split("<script")[0]


@pytest.mark.parametrize("slug", ["no-such", "..%2f..", "a%00b", "leaderboard", "%2e%2e"])
def test_what_is_not_there_is_not_found(client: TestClient, slug: str) -> None:
    assert client.get(f"/practice/{slug}").status_code in (404, 307)
    assert client.post(f"/api/practice/{slug}/run", json={"code": ""}).status_code in (404, 405)
    assert client.get("/practice/leaderboard/double").status_code == 404


def test_a_faulty_problem_is_named(client: TestClient) -> None:
    assert client.get("/practice/broken").status_code == 400
    assert "broken" in error(client.post("/api/practice/broken/run", json={"code": ""}), 400)["text"]


# --- Running and submitting


def test_a_run_is_never_an_attempt(fresh: TestClient) -> None:
    own = [{"name": "mine", "text": "[5]"}]
    found = fresh.post(f"{API}/run", json={"code": WRONG, "own": own}).json()
    assert found["verdict"] == "WA" and [case["kind"] for case in found["cases"]] == ["sample", "own"]
    assert found["cases"][1]["expected"] == "[10]" and found["cases"][1]["yours"] == "[25]"
    assert page(fresh)["submissions"] == []


@pytest.mark.parametrize("text", ["", "import os", "[1", "numbers = x", "other = [1]", "[None]"])
def test_an_own_test_that_does_not_fit_is_named(fresh: TestClient, text: str) -> None:
    own = [{"name": "good", "text": "[1]"}, {"name": "mine", "text": text}]
    found = error(fresh.post(f"{API}/run", json={"code": RIGHT, "own": own}), 400)
    assert found["key"] == "mine" and found["fix"]


def test_a_submission_tells_each_test_and_then_its_verdict(fresh: TestClient) -> None:
    told = submit(fresh, RIGHT)
    cases, result = told[:-1], told[-1]
    assert {case["event"] for case in cases} == {"case"} and {case["total"] for case in cases} == {len(cases)} == {15}
    assert (result["event"], result["verdict"]) == ("result", "AC") and result["due"] > str(date.today())
    found = page(fresh)
    assert found["solved"] and found["due"] == result["due"]
    assert [one["id"] for one in found["submissions"]] == [result["id"]]
    kept = fresh.get(f"{API}/submissions/{result['id']}").json()
    assert kept["code"] == RIGHT and kept["result"]["sentence"] == result["sentence"]
    assert 'data-state="solved"' in fresh.get("/practice").text and "day 1" in fresh.get("/practice").text


def test_a_wrong_submission_stops_at_the_first_difference_and_is_explained(fresh: TestClient) -> None:
    result = submit(fresh, WRONG)[-1]
    assert result["verdict"] == "WA" and result["cases"][-1]["difference"]["text"] and result["due"] is None
    told = fresh.post(f"{API}/explain", json={"submission": result["id"]}).json()
    assert told["mistake"]["name"] == "Squares" and told["sentence"] and told["code"] == WRONG
    assert page(fresh)["submissions"][0]["verdict"] == "WA" and not page(fresh)["solved"]


def test_submissions_of_others_are_not_shown(fresh: TestClient) -> None:
    id = submit(fresh, WRONG)[-1]["id"]
    fresh.post("/settings/profiles", data={"name": "Somebody else"})
    for answer in (fresh.get(f"{API}/submissions/{id}"), fresh.post(f"{API}/explain", json={"submission": id})):
        error(answer, 400)


def test_where_programs_cannot_be_run_it_says_so(fresh: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = fresh.app.state.house.judge  # type: ignore[attr-defined]
    opened = judge._judge
    monkeypatch.setattr(judge, "_judge", None)
    monkeypatch.setattr(tiers, "_found", tiers.Tier("", "not available", "this is a test", "Use another"))
    for path in ("run", "submit"):
        found = error(fresh.post(f"{API}/{path}", json={"code": RIGHT}), 503)
        assert "this is a test" in found["text"] and found["fix"] == "Use another"
    assert page(fresh)["tier"]["reason"] == "this is a test" and page(fresh)["samples"] == []
    assert page(fresh)["submissions"] == []
    monkeypatch.undo()
    judge._judge = opened


# --- Drafts, notes, tests, hints


def test_what_is_written_is_there_again(fresh: TestClient) -> None:
    assert fresh.put(f"{API}/draft", json={"code": "x\r\n"}).status_code == 204
    assert fresh.put(f"{API}/note", json={"text": "# ü"}).status_code == 204
    id = fresh.post(f"{API}/own", json={"name": "mine", "text": "[1]"}).json()["id"]
    found = page(fresh)
    assert (found["code"], found["note"]) == ("x\r\n", "# ü")
    assert found["own"] == [{"id": id, "name": "mine", "text": "[1]"}]
    assert fresh.delete(f"{API}/draft").status_code == 204
    assert fresh.delete(f"{API}/own/{id}").status_code == 204
    error(fresh.delete(f"{API}/own/{id}"), 404)
    found = page(fresh)
    assert found["code"] == found["starter"] and found["own"] == []


def test_hints_come_one_after_the_other(fresh: TestClient) -> None:
    error(fresh.post(f"{API}/hint", json={"number": 2}), 400)
    assert "katex" in fresh.post(f"{API}/hint", json={"number": 1}).json()["html"]
    assert "Two." in fresh.post(f"{API}/hint", json={"number": 2}).json()["html"]
    error(fresh.post(f"{API}/hint", json={"number": 4}), 400)
    assert len(page(fresh)["hints"]["seen"]) == 2
    error(fresh.get(f"{API}/solution"), 400)
    submit(fresh, RIGHT)
    told = fresh.get(f"{API}/solution").json()
    assert (told["input"], told["expected"]) == ("numbers = [1, 2, 3]", "[2, 4, 6]")
    assert told["steps"][-1]["value"] == "[2, 4, 6]"
    assert "<strong>itself</strong>" in fresh.post(f"{API}/hint", json={"number": 4}).json()["html"]
    error(fresh.post(f"{API}/hint", json={"number": 0}), 400)


# --- Guards

PLACES = [
    ("POST", "run", {"code": ""}), ("POST", "submit", {"code": ""}), ("PUT", "draft", {"code": ""}),
    ("PUT", "note", {"text": ""}), ("POST", "own", {"name": "n", "text": ""}), ("POST", "hint", {"number": 1}),
    ("POST", "explain", {"submission": 1}), ("DELETE", "draft", None), ("DELETE", "own/1", None),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body"), PLACES)
def test_another_site_and_an_unknown_slug_are_refused(
    client: TestClient, method: str, path: str, body: dict[str, Any] | None
) -> None:
    foreign = {"origin": "http://evil.example"}
    assert client.request(method, f"{API}/{path}", json=body, headers=foreign).status_code == 403
    error(client.request(method, f"/api/practice/other/{path}", json=body), 404)


@pytest.mark.parametrize(("method", "path", "body"), [one for one in PLACES if one[2] is not None])
@pytest.mark.parametrize("bad", [b"{", b"[]", b"3", b'{"other": 1}', b"{}", b"\xff", b"[" * 9000])
def test_a_body_that_does_not_fit_is_refused(
    client: TestClient, method: str, path: str, body: dict[str, Any], bad: bytes
) -> None:
    assert error(client.request(method, f"{API}/{path}", content=bad), 400)["fix"]
    more = {**body, "more": 1}
    error(client.request(method, f"{API}/{path}", json=more), 400)


@pytest.mark.parametrize(("method", "path"), [("POST", "run"), ("POST", "submit"), ("PUT", "draft")])
@pytest.mark.parametrize("code", ["#" * (CODE + 1), "ü" * (CODE // 2 + 1), "a\0"])
def test_a_program_that_cannot_be_kept_is_refused(client: TestClient, method: str, path: str, code: str) -> None:
    error(client.request(method, f"{API}/{path}", json={"code": code}), 400)


def test_export_and_import(fresh: TestClient) -> None:
    submit(fresh, RIGHT)
    fresh.put(f"{API}/note", json={"text": "mine"})
    answer = fresh.get("/api/practice/export")
    assert answer.headers["content-disposition"].endswith('"bitwright-practice.zip"')
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert sorted(names) == ["double/notes.md", "double/solution.py", "double/submissions.json", "record.json"]
    fresh.post("/settings/profiles", data={"name": "On another machine"})
    counts = fresh.post("/api/practice/import", content=answer.content).json()["counts"]
    assert counts == {"problems": 1, "submissions": 1, "notes": 1, "drafts": 0, "own": 0}
    assert page(fresh)["solved"] and page(fresh)["note"] == "mine"
    error(fresh.post("/api/practice/import", content=b"nothing"), 400)
    assert fresh.post("/api/practice/import", content=answer.content, headers={"origin": "null"}).status_code == 403


# --- Elsewhere in the studio


def test_the_palette_lists_problems(client: TestClient) -> None:
    found = {entry["href"]: entry["kind"] for entry in client.get("/api/palette").json()}
    assert found["/practice"] == "page" and found["/practice/double"] == "problem" and "/practice/broken" not in found


def test_the_leaderboard_ranks_quality_against_bits(fresh: TestClient) -> None:
    for code in ("return list(numbers)", "return [0 for _ in numbers]"):
        assert submit(fresh, f"def code(numbers):\n    {code}\n", "fewer-bits")[-1]["verdict"] == "AC"
    text = fresh.get("/practice/leaderboard/fewer-bits").text
    assert "Closeness, dB" in text and text.count("(you)") == 2


def test_it_follows_a_room_of_its_own(client: TestClient, tmp_path: Path) -> None:
    assert 'href="/practice"' in client.get("/learn").text
