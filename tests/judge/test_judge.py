"""From a submission to its verdict."""

# ruff: noqa: E501 - programs and rows of tables stand in one line

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bitwright
from bitwright.judge import cases, values
from bitwright.judge.growth import Measured
from bitwright.judge.judge import Judge
from bitwright.judge.pool import Broken, Busy, Pool, Unavailable
from bitwright.judge.problem import Problem, ProblemError, Shelf, read
from bitwright.judge.tiers import open_pool
from bitwright.judge.verdict import Case, Verdict

SHELF = Shelf(Path(bitwright.__file__).parent / "content")


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with open_pool(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def judge(pool: Pool) -> Judge:
    return Judge(pool)


def problem(slug: str = "largest-run-sum") -> Problem:
    return SHELF.problem(slug)


RIGHT = problem().text("solution.py")


@pytest.mark.parametrize(
    ("code", "verdict", "sentence", "reason"),
    [
        ("def largest_run(gains):\n    return sum(gains)", Verdict.WA, "Wrong answer on test 1 of 22: a loss worth taking", "Expected 8, yours is -1"),
        ("def largest_run(gains):\n    return gains[99]", Verdict.RTE, "Error while running on test 1 of 22", "IndexError: list index out of range"),
        ("def largest_run(gains):\n    while True: pass", Verdict.TLE, "Too slow on test 1 of 22", "2 s are allowed"),
        ("def largest_run(gains):\n    return len(bytearray(10**10))", Verdict.MLE, "Too much memory on test 1", "more than 256 MB"),
        ("def largest_run(gains):\n    while True: print('x' * 999)", Verdict.OLE, "Too much output on test 1", "64 kB"),
        ("def largest_run(gains)\n    return 1", Verdict.CE, "Does not compile: line 1", "SyntaxError: expected ':'"),
        ("def largest_run(gains):\n    return 1\0", Verdict.CE, "Does not compile", "null bytes"),
        ("def largest(gains):\n    return 1", Verdict.CE, "Does not compile on test 1", "there is no function largest_run"),
        ("largest_run = 4", Verdict.CE, "Does not compile on test 1", "there is no function largest_run"),
        ("import nothing_like_it", Verdict.RTE, "Error while running on test 1", "ModuleNotFoundError"),
        ("def largest_run():\n    return 1", Verdict.RTE, "Error while running on test 1", "takes 0 positional arguments"),
        ("# " + "x" * 70000, Verdict.CE, "The program is longer than 64 kB", ""),
        ("import os\nos._exit(0)", Verdict.RTE, "Error while running on test 1", "it ended without an answer"),
        ("import os\nos._exit(3)", Verdict.RTE, "Error while running on test 1", "exit code 3"),
        ("import os, signal\ndef largest_run(gains):\n    os.abort()", Verdict.RTE, "Error while running on test 1", "SIGABRT"),
        (RIGHT, Verdict.AC, "Accepted: 22 of 22 tests", ""),
    ],
)  # fmt: skip
def test_each_verdict_and_its_words(judge: Judge, code: str, verdict: Verdict, sentence: str, reason: str) -> None:
    result = judge.submit(problem(), code)
    assert (result.verdict, result.tier) == (verdict, judge.pool.tier)
    assert result.sentence.startswith(sentence)
    assert reason in result.reason
    json.dumps(result.json(), allow_nan=False)


def test_an_error_names_its_line(judge: Judge) -> None:
    result = judge.submit(
        problem(), "def help_(x):\n    return 1 / x\n\ndef largest_run(gains):\n    return help_(0)\n"
    )
    assert result.line == 2
    assert result.failed is not None
    assert result.failed.error is not None
    assert [frame[:2] for frame in result.failed.error["stack"]] == [["largest_run", 5], ["help_", 2]]
    assert result.failed.error["stack"][1][2].strip() == "return 1 / x"


def test_a_submission_ends_with_its_first_failure_and_a_run_does_not(judge: Judge) -> None:
    code = "def largest_run(gains):\n    return 7"
    assert len(judge.submit(problem(), code).cases) == 1
    run = judge.run(problem(), code, [judge.own(problem(), "[7]"), judge.own(problem(), "gains = [3]")])
    assert [case.verdict for case in run.cases] == [Verdict.WA, Verdict.WA, Verdict.AC, Verdict.WA]
    assert run.growth is None


def test_each_test_is_told_as_it_is_judged(judge: Judge) -> None:
    heard: list[tuple[Case, int]] = []
    result = judge.submit(problem(), RIGHT, told=lambda case, total: heard.append((case, total)))
    assert [case for case, _ in heard] == result.cases
    assert {total for _, total in heard} == {22}


def test_what_a_program_prints_is_shown(judge: Judge) -> None:
    result = judge.run(problem(), "import sys\n" + RIGHT + "print('up')\nprint('err\\0or', file=sys.stderr)", [])
    assert result.cases[0].output == "up\nerr\N{SYMBOL FOR NULL}or\n"


def test_growth_is_measured_and_named(judge: Judge) -> None:
    assert (judge.submit(problem(), RIGHT).growth or {})["allowed"] == 1
    slow = "def largest_run(gains):\n    return max(sum(gains[i:j]) for i in range(len(gains)) for j in range(i + 1, len(gains) + 1))"
    result = judge.submit(problem(), slow)
    assert result.verdict is Verdict.TLE
    assert "Time may grow like n" in result.reason
    assert (result.growth or {})["late"]


@pytest.mark.parametrize(
    ("seconds", "late", "good"),
    [
        ([0.01, 0.04, 0.16], False, True), ([0.01, 0.16, 2.56], False, False), ([0.01, 0.05, 0.22], False, True),
        ([0.0001, 0.0001, 0.01], False, True), ([0.01, 0.04, 2.0], True, False), ([0.01, 0.08, 0.64], False, True),
    ],
)  # fmt: skip
def test_a_power_more_is_seen_and_noise_is_not(seconds: list[float], late: bool, good: bool) -> None:
    measured = Measured([1000, 4000, 16000], seconds, 1, late)
    assert measured.good is good
    assert good or "n" in measured.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "gains is missing"), ("gains = [1", "cannot be read"), ("gain = [1]", "the arguments are gains"),
        ("[1]\n[2]", "the arguments are gains"), ("gains = open('x')", "must be a literal"), ("import os", "write each argument"),
        ("gains = []", "solution.py"), ("gains = None", "solution.py"), ("[" * 999, "cannot be read"), ("\0", "cannot be read"),
    ],
)  # fmt: skip
def test_own_input_that_does_not_fit_is_explained(judge: Judge, text: str, said: str) -> None:
    with pytest.raises(ProblemError, match=said):
        judge.own(problem(), text)


def test_own_input_may_stand_for_an_array(judge: Judge) -> None:
    test = judge.own(problem("stable-softmax"), "logits = [[1, 2], [3, 4]]\naxis = 1")
    assert values.decode(test.arguments[0]).dtype == "float64"
    assert values.decode(test.expected).shape == (2, 2)
    with pytest.raises(ProblemError, match="one length"):
        judge.own(problem("stable-softmax"), "logits = [[1, 2], [3]]\naxis = 1")


class Failing:
    """A pool that fails."""

    tier = "A"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def run(self, *_: Any, **__: Any) -> Any:
        raise self.error


def test_a_fault_of_ours_is_no_attempt(judge: Judge) -> None:
    ours = Judge(judge.pool)
    ours.tests(problem())
    ours.pool = Failing(Broken("the zygote ended in the middle of a run"))  # type: ignore[assignment]
    result = ours.submit(problem(), RIGHT)
    assert result.verdict is Verdict.IE
    assert "zygote ended" in result.sentence
    for error in (Busy("64 runs are waiting already"), Unavailable("no walls")):
        ours.pool = Failing(error)  # type: ignore[assignment]
        with pytest.raises(type(error)):
            ours.submit(problem(), RIGHT)


def test_tests_are_kept_until_the_problem_changes(judge: Judge, tmp_path: Path) -> None:
    folder = tmp_path / "largest-run-sum"
    shutil.copytree(problem().folder, folder)
    first = cases.prepare(judge.pool, read(folder), tmp_path / "kept")
    [kept] = (tmp_path / "kept").glob("*.json")
    assert cases.prepare(Failing(AssertionError()), read(folder), tmp_path / "kept") == first  # type: ignore[arg-type]
    kept.write_text("{")
    assert cases.prepare(judge.pool, read(folder), tmp_path / "kept") == first
    (folder / "hints.md").write_text("changed")
    cases.prepare(judge.pool, read(folder), tmp_path / "kept")
    assert [path != kept for path in (tmp_path / "kept").glob("*.json")] == [True]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def samples():\n    return 4", "return lists"), ("def samples():\n    return [4]", "arguments are a tuple"),
        ("def samples():\n    return [('a',)]", "a sample is"), ("def samples(", "SyntaxError"), ("", "no function samples"),
        ("def samples():\n    return [1 / 0]", "line 2: ZeroDivisionError"), ("def samples():\n    return [('a', [1])]", "arguments are a tuple"),
    ],
)  # fmt: skip
def test_faulty_cases_are_named(judge: Judge, tmp_path: Path, code: str, said: str) -> None:
    folder = tmp_path / "largest-run-sum"
    shutil.copytree(problem().folder, folder)
    rest = (
        "\ndef hidden():\n    return []\ndef generate(rng, size):\n    return ([1],)\ndef grow(n):\n    return ([1],)\n"
    )
    (folder / "cases.py").write_text(code + rest)
    with pytest.raises(ProblemError, match=rf"largest-run-sum/cases\.py: .*({said})"):
        judge.tests(read(folder))


def test_answers_may_be_larger_than_expected_but_not_by_much(judge: Judge) -> None:
    result = judge.submit(problem(), "def largest_run(gains):\n    return [0] * 50_000")
    assert result.verdict is Verdict.WA
    result = judge.submit(problem(), "def largest_run(gains):\n    return [0] * 500_000")
    assert result.verdict is Verdict.OLE
    assert "larger than the expected" in result.reason
