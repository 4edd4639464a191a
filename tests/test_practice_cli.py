"""Practice, doctor and content in the terminal, with the real judge behind its real walls."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bitwright.authoring.folder import CONTENT
from bitwright.cli import app

SLUG = "product-except-self"
FOLDER = CONTENT / "problems" / SLUG


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of these tests goes to the user's own data folder."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def run(*words: str, code: int = 0) -> str:
    """A command's output; its errors are added where it fails."""
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, result.output
    return result.stdout + (result.stderr if code else "")


def test_list_names_every_problem_with_its_difficulty() -> None:
    text = run("practice", "list")
    assert f"  {SLUG} " in text
    assert "medium" in text
    events = [json.loads(line) for line in run("practice", "list", "--json", "--collection", "core").splitlines()]
    assert {event["collection"] for event in events} == {"core"}
    assert events[0]["slug"] == SLUG
    assert "Choose one of core" in run("practice", "list", "--collection", "cor", code=2)


def test_show_has_the_reference_s_results() -> None:
    text = run("practice", "show", SLUG)
    assert "numbers = [5, 2, 3, 4]\nresult: [24, 60, 40, 30]" in text
    assert "[[ samples ]]" not in text


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1"])
def test_a_program_is_read_as_python_reads_it(encoding: str, tmp_path: Path) -> None:
    """A byte order mark is none of its characters; another encoding is named in its first lines."""
    text = (FOLDER / "solution.py").read_text("utf-8")
    program = tmp_path / f"{SLUG}.py"
    program.write_bytes(f"# -*- coding: {encoding} -*-\n# caf\u00e9\n{text}".encode(encoding))
    assert json.loads(run("practice", "run", str(program), "--json"))["verdict"] == "AC"


def test_a_program_that_python_cannot_read_is_named(tmp_path: Path) -> None:
    program = tmp_path / f"{SLUG}.py"
    for data in (b"# caf\xe9\n", b"# -*- coding: klingon -*-\n"):
        program.write_bytes(data)
        assert f"{SLUG}.py: cannot be read" in run("practice", "run", str(program), code=2)


@pytest.mark.slow
def test_from_the_starter_to_the_verdict(tmp_path: Path) -> None:
    run("practice", "start", SLUG)
    program = tmp_path / f"{SLUG}.py"
    assert program.read_text() == (FOLDER / "starter.py").read_text()
    assert "the output exists" in run("practice", "start", SLUG, code=2)
    assert "NotImplementedError" in run("practice", "submit", str(program), code=1)
    program.write_text((FOLDER / "solution.py").read_text())
    text = run("practice", "submit", str(program))
    assert "Accepted: " in text
    event = json.loads(run("practice", "submit", str(program), "--json"))
    assert event["verdict"] == "AC"
    assert len(event["cases"]) == event["total"]
    assert event["growth"]["exponent"] < 1.5


def test_the_first_difference_is_shown(tmp_path: Path) -> None:
    program = tmp_path / "mine.py"
    program.write_text("def product_except_self(numbers):\n    return numbers\n")
    assert "--problem SLUG" in run("practice", "submit", str(program), code=2)
    text = run("practice", "submit", str(program), "--problem", SLUG, code=1)
    assert "Expected 24 at [0], yours is 5. 4 of 4 places differ." in text
    assert "Wrong answer on test 1 of" in text
    text = run("practice", "run", str(program), "--problem", SLUG, "--input", "numbers = [7, 1]")
    assert "input: numbers = [7, 1]\n      expected: [1, 7]\n      yours: [7, 1]" in text


def test_a_mistake_is_explained_and_what_was_done_travels(tmp_path: Path) -> None:
    wrong = CONTENT / "problems" / "channel-scales" / "wrong" / "signed-peak.py"
    text = run("practice", "explain", str(wrong), "--problem", "channel-scales")
    assert "Takes the maximum, not the largest size." in text
    assert "try next: " in text
    told = json.loads(run("practice", "explain", str(wrong), "--problem", "channel-scales", "--json"))
    assert told["mistake"]["how"] == "same answer as"
    run("practice", "submit", str(wrong), "--problem", "channel-scales", code=1)
    run("practice", "export", "mine")
    assert (tmp_path / "mine" / "channel-scales" / "solution.py").read_text() == wrong.read_text()
    assert "1 submissions" in run("practice", "import", "mine", "--data", "other")
    assert "0 submissions" in run("practice", "import", "mine", "--data", "other")
    assert "record.json: is missing" in run("practice", "import", "nowhere", code=2)


def test_division_is_found(tmp_path: Path) -> None:
    program = tmp_path / f"{SLUG}.py"
    program.write_text("def product_except_self(numbers):\n    return [1 // n for n in numbers]\n")
    assert "Not allowed here: //, line 2" in run("practice", "submit", str(program), code=1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("show", "nothing"), "there is no problem 'nothing'"),
        (("hint", "nothing", "1"), "there is no problem 'nothing'"),
        (("start", "../x"), "there is no problem '../x'"),
        (("submit", "nowhere.py"), "nowhere.py: cannot be read"),
    ],
)
def test_what_is_not_there_is_said(words: tuple[str, ...], told: str) -> None:
    assert told in run("practice", *words, code=2)


def test_hints_say_more_and_more() -> None:
    hints = [run("practice", "hint", SLUG, str(number)) for number in (1, 2, 3, 4)]
    assert len(set(hints)) == 4


def test_doctor_looks_behind_the_walls() -> None:
    text = run("doctor")
    assert "sandbox of the judge: tier " in text
    events = [json.loads(line) for line in run("doctor", "--json").splitlines()]
    assert {"bitwright", "python", "extra studio", "sandbox of the judge"} <= {event["what"] for event in events}


def test_a_new_problem_proves_itself_but_for_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = tmp_path / "content"
    (shelf / "problems").mkdir(parents=True)
    shutil.copy(CONTENT / "collections.toml", shelf)
    monkeypatch.setattr("bitwright.authoring.folder.CONTENT", shelf)
    folder = shelf / "problems" / "my-own"
    run("content", "new", "problem", "my-own")
    assert "already exists" in run("content", "new", "problem", "my-own", code=2)
    text = run("content", "check", "my-own", code=1)
    assert "BAD  problem my-own: is in no collection" in text
    assert "ok   problem my-own: " in text
    (folder / "solution.py").write_text("def answer(numbers):\n    return 1 / 0\n")
    assert "solution.py: line 2: ZeroDivisionError" in run("content", "check", "my-own", code=1)
    (folder / "solution.py").write_text("def answer(numbers):\n    return len(numbers)\n")
    assert "wrong/counts.py: should get WA, gets AC" in run("content", "check", "my-own", code=1)
