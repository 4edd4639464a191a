"""A problem's tests: its cases, run inside the walls, and its reference's answers; kept until the problem changes."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import values
from .limits import Limits
from .pool import Pool, Run
from .problem import Problem, ProblemError

RANDOM = 10
"""Random cases of a problem."""
GENEROUS = Limits(cpu=20, memory=1024, output=1 << 20, answer=64 << 20)
"""For our own programs, many calls in one process."""


@dataclass(frozen=True)
class Test:
    """One case with the reference's answer; arguments and answer are encoded."""

    name: str
    kind: str
    arguments: list[Any]
    expected: Any = None
    note: str = ""


@dataclass(frozen=True)
class Tests:
    """All tests of a problem, samples first; `growth` are those whose time is looked at, smallest first."""

    tests: list[Test]
    growth: list[Test] = field(default_factory=list)

    @property
    def samples(self) -> list[Test]:
        """What the learner sees."""
        return [test for test in self.tests if test.kind == "sample"]


def sizes(count: int) -> list[int]:
    """Sizes of random cases: small ones first, then some that are large."""
    return [round(1 + 0.4 * i * i + i) for i in range(count)]


def prepare(pool: Pool, problem: Problem, cache: Path | None = None, seed: int = 0) -> Tests:
    """A problem's tests, from `cache` where they are kept. ProblemError where its own programs fail."""
    kept = cache / f"{problem.slug}.{problem.fingerprint[:16]}.{seed}.json" if cache else None
    if kept and kept.exists():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return _load(json.loads(kept.read_text("utf-8")))
    tests = _make(pool, problem, seed)
    if kept:
        _keep(kept, tests)
    return tests


def _make(pool: Pool, problem: Problem, seed: int) -> Tests:
    calls: list[dict[str, Any]] = [{"function": "samples", "arguments": []}, {"function": "hidden", "arguments": []}]
    calls += [
        {"function": "generate", "arguments": [{"random": 1000 * seed + i}, size]}
        for i, size in enumerate(sizes(RANDOM))
    ]
    grown = problem.growth.sizes if problem.growth else ()
    calls += [{"function": "grow", "arguments": [size]} for size in grown]
    made = trusted(pool, problem, "cases.py", calls)
    found = [
        _named(problem, one, kind)
        for one, kind in (
            (one, kind) for kind, group in (("sample", made[0]), ("hidden", made[1])) for one in _list(problem, group)
        )
    ]
    found += [Test(f"random {i + 1}", "random", _tuple(problem, one)) for i, one in enumerate(made[2 : 2 + RANDOM])]
    found += [
        Test(f"size {size:,}", "growth", _tuple(problem, one))
        for size, one in zip(grown, made[2 + RANDOM :], strict=True)
    ]
    answers = reference(pool, problem, [test.arguments for test in found])
    answered = [replace(test, expected=answer) for test, answer in zip(found, answers, strict=True)]
    return Tests([t for t in answered if t.kind != "growth"], [t for t in answered if t.kind == "growth"])


def reference(
    pool: Pool, problem: Problem, arguments: list[list[Any]], owner: object = "house", limits: Limits = GENEROUS
) -> list[Any]:
    """The reference's answers, encoded. ProblemError where it fails."""
    calls = [{"function": problem.function, "arguments": one} for one in arguments]
    return trusted(pool, problem, "solution.py", calls, owner, limits)


def trusted(
    pool: Pool,
    problem: Problem,
    name: str,
    calls: list[dict[str, Any]],
    owner: object = "house",
    limits: Limits = GENEROUS,
) -> list[Any]:
    """What a program of the problem's own returns for some calls; it runs inside the walls like any other."""
    run = pool.run({"code": problem.text(name), "calls": calls}, problem.needs, limits, owner)
    if run.answer is None or "results" not in run.answer:
        raise ProblemError(f"{problem.slug}/{name}: {failure(run)}")
    results: list[Any] = run.answer["results"]
    return results


def failure(run: Run) -> str:
    """Why a run gave no result, in a few words."""
    if run.answer and "error" in run.answer:
        error = run.answer["error"]
        return f"line {error['line']}: {error['type']}: {error['text']}"
    return run.strange or (f"ended by signal {run.signal}" if run.signal else f"stopped for its {run.killed or 'exit'}")


def _list(problem: Problem, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ProblemError(f"{problem.slug}/cases.py: samples() and hidden() return lists")
    return value


def _tuple(problem: Problem, value: Any) -> list[Any]:
    if not isinstance(value, dict) or not isinstance(value.get("tuple"), list):
        raise ProblemError(f"{problem.slug}/cases.py: arguments are a tuple, of one too: (nums,)")
    found: list[Any] = value["tuple"]
    return found


def _named(problem: Problem, value: Any, kind: str) -> Test:
    parts = _tuple(problem, value)
    if len(parts) not in (2, 3) or not isinstance(parts[0], str) or (len(parts) == 3 and not isinstance(parts[2], str)):
        raise ProblemError(f"{problem.slug}/cases.py: a {kind} is (name, arguments) or (name, arguments, note)")
    return Test(parts[0], kind, _tuple(problem, parts[1]), note=parts[2] if len(parts) == 3 else "")


def _keep(path: Path, tests: Tests) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    groups = {"tests": tests.tests, "growth": tests.growth}
    data = {name: [[t.name, t.kind, t.arguments, t.expected, t.note] for t in group] for name, group in groups.items()}
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".cases")
    with open(handle, "w", encoding="utf-8") as file:
        json.dump(data, file)
    os.replace(name, path)
    for old in path.parent.glob(f"{path.name.split('.')[0]}.*.json"):
        if old.name.split(".")[1] != path.name.split(".")[1]:
            old.unlink(missing_ok=True)


def _load(data: dict[str, Any]) -> Tests:
    tests, growth = ([Test(*row) for row in data[name]] for name in ("tests", "growth"))
    for test in tests:
        values.decode(test.expected)
    return Tests(tests, growth)
