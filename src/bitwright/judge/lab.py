"""Experiments with a failed submission: what it, the reference and known wrong solutions answer to the same inputs.

All of it runs inside the walls, and it is bounded: in runs of the submission, and in time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from . import checker, values
from .cases import GENEROUS, Test, Tests
from .judge import Judge
from .limits import Limits
from .pool import Broken
from .problem import Check, Mistake, Problem
from .shrink import Arguments, Rules, lighter, minimize, weight
from .verdict import Case, Verdict

RUNS = 40
"""Runs of the submission, at most."""
SECONDS = 1.5
"""Seconds after which no further experiment is begun."""
LOOKED = 28
"""Inputs that are looked at before the smallest failing one is made still smaller."""
SIZES, SEEDS = (1, 2, 3, 4), 4
"""Sizes and seeds of the small random inputs."""
QUICK = 0.5
"""CPU seconds that the submission gets for a small input."""
MOST_STEPS = 200
EACH = """

def bitwright_each(calls):
    told = []
    for arguments in calls:
        try:
            told.append((True, {function}(*arguments)))
        except Exception as error:
            told.append((False, type(error).__name__))
    return told
"""
"""What is added to our own programs, so that one run answers many inputs."""


@dataclass(frozen=True)
class Answer:
    """What a program did with an input: its answer, encoded, or what it raised; `late` where it did not end."""

    value: Any = None
    error: str = ""
    late: bool = False


@dataclass(frozen=True)
class Trial:
    """One input, what the submission did with it, and its verdict."""

    test: Test
    answer: Answer
    case: Case

    @property
    def failed(self) -> bool:
        """Whether the submission is wrong on it."""
        return self.case.verdict is not Verdict.AC


class Lab:
    """Everything that is tried with one submission."""

    def __init__(self, judge: Judge, problem: Problem, code: str, owner: object = "") -> None:
        self.judge, self.problem, self.code, self.owner = judge, problem, code, owner
        limits = Limits(cpu=min(QUICK, problem.limits.cpu), memory=problem.limits.memory)
        self._quick = replace(problem, limits=limits)
        self._traced: dict[str, tuple[list[dict[str, Any]], bool]] = {}
        self._left, self._until = RUNS, time.monotonic() + SECONDS

    @cached_property
    def tests(self) -> Tests:
        """The problem's own tests."""
        return self.judge.tests(self.problem)

    @property
    def spent(self) -> bool:
        """Whether runs or time are used up."""
        return self._left <= 0 or time.monotonic() > self._until

    def learner(self, test: Test, quick: bool = True) -> Trial:
        """The submission on one input; `quick` with little time."""
        self._left -= 1
        problem = self._quick if quick else self.problem
        try:
            run = self.judge.answer(problem, self.code, test.arguments, self.owner)
        except Broken as error:
            case = Case(test.name, test.kind, Verdict.IE, 0, 0, arguments=test.arguments, reason=str(error))
            return Trial(test, Answer(error="Broken"), case)
        case = self.judge.judged(problem, test, run)
        if case.verdict in (Verdict.AC, Verdict.WA) and not case.error:
            return Trial(test, Answer((run.answer or {})["results"][0]), case)
        late = case.verdict is Verdict.TLE
        return Trial(test, Answer(error=str((case.error or {}).get("type") or case.verdict), late=late), case)

    def steps(self, arguments: Arguments) -> tuple[list[dict[str, Any]], bool]:
        """The submission's variables, line by line, and whether there would be more."""
        key = json.dumps(arguments)
        if key not in self._traced:
            self._left -= 1
            trace = {"most": MOST_STEPS, "stop": True}
            answer = {}
            with suppress(Broken):
                answer = self.judge.answer(self._quick, self.code, arguments, self.owner, trace).answer or {}
            self._traced[key] = list(_steps(answer.get("steps"))), answer.get("cut") is True
        return self._traced[key]

    def reference_steps(self, arguments: Arguments) -> list[dict[str, Any]]:
        """How the variables change that tell the reference's story; nothing of its code."""
        names = list(self.problem.watch)
        if not names:
            return []
        trace = {"most": 2 * MOST_STEPS, "names": names, "stop": True}
        found = self._own("solution.py", [{"function": self.problem.function, "arguments": arguments}], trace)
        told: list[dict[str, Any]] = []
        for step in found.get("steps", ()):
            variables = {name: step["variables"][name] for name in names if name in step["variables"]}
            if variables and (not told or told[-1]["variables"] != variables):
                told.append({"line": step["line"], "variables": variables})
        return told[:MOST_STEPS]

    def relative(self, mistake: Mistake, inputs: list[Arguments]) -> list[Answer]:
        """What a known wrong solution answers."""
        return self._each(mistake.file, inputs)

    def reference(self, inputs: list[Arguments]) -> list[Answer]:
        """What the reference answers; an error says that the input is none."""
        return self._each("solution.py", inputs)

    def _each(self, name: str, inputs: list[Arguments]) -> list[Answer]:
        call = {"function": "bitwright_each", "arguments": [[{"tuple": one} for one in inputs]]}
        try:
            [told] = self._own(name, [call])["results"]
            return [Answer(a) if good else Answer(error=a) for good, a in (one["tuple"] for one in told)]
        except (KeyError, ValueError, TypeError):
            return [Answer(late=True)] * len(inputs)

    def _own(self, name: str, calls: list[dict[str, Any]], trace: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer of one of the problem's own programs, an empty one where it gave none."""
        code = self.problem.text(name) + EACH.format(function=self.problem.function)
        request = {"code": code, "calls": calls, **({"trace": trace} if trace else {})}
        limits = replace(GENEROUS, cpu=1.0)
        try:
            return self.judge.pool.run(request, self.problem.needs, limits, "house").answer or {}
        except Broken:
            return {}

    # --- inputs

    def generated(self) -> list[Test]:
        """Small random inputs with the reference's answers."""
        calls = [
            {"function": "generate", "arguments": [{"random": 7919 * size + seed}, size]}
            for size in SIZES
            for seed in range(SEEDS)
        ]
        # cases.py has no function of the problem's name; what is added to it is never called
        made = self._own("cases.py", calls).get("results", ())
        return self._valid([one["tuple"] for one in made if isinstance(one, dict) and "tuple" in one], "a small input")

    def _valid(self, inputs: list[Arguments], name: str) -> list[Test]:
        answers = self.reference(inputs) if inputs else []
        return [
            Test(name, "random", arguments, answer.value)
            for arguments, answer in zip(inputs, answers, strict=True)
            if not answer.error and not answer.late
        ]

    def around(self, first: Test) -> Iterator[Trial]:
        """The submission on other tests and on small random inputs, the smallest first, within the bounds."""
        others = [test for test in self.tests.tests if test.arguments != first.arguments]
        for test in lighter([*self.generated(), *others])[:LOOKED]:
            if self.spent:
                return
            yield self.learner(test)

    def shrunk(self, trial: Trial) -> Trial:
        """The same failure on an input with as much left out as the rules of the problem's inputs allow."""
        rules, best = Rules(self.tests.tests), trial

        def fails(arguments: Arguments) -> bool:
            nonlocal best
            if self.spent:
                return False
            [answer] = self.reference([arguments])
            if answer.error or answer.late or not rules.allow_answer(answer.value):
                return False
            tried = self.learner(Test(f"made smaller: {trial.test.name}", "random", arguments, answer.value))
            if not alike(tried, trial):
                return False
            best = tried
            return True

        minimize(trial.test.arguments, rules, fails)
        return best

    def same(self, one: Answer, other: Answer) -> bool:
        """Whether two programs did the same with an input."""
        if one.late or other.late:
            return one.late and other.late
        if one.error or other.error:
            return one.error == other.error
        check = Check("exact") if self.problem.check.kind == "custom" else self.problem.check
        try:
            return checker.compare(values.decode(one.value), values.decode(other.value), check) is None
        except (ValueError, TypeError, RecursionError):
            return False


def alike(one: Trial, other: Trial) -> bool:
    """Whether two trials failed in the same way."""
    return one.failed and one.case.verdict is other.case.verdict and one.answer.error == other.answer.error


def smallest(trials: list[Trial], first: Trial) -> Trial:
    """The smallest input on which a submission failed as it did on the first."""
    return min((one for one in trials if alike(one, first)), key=lambda one: weight(one.test.arguments), default=first)


def _steps(told: Any) -> Iterator[dict[str, Any]]:
    """Steps as far as they are steps: they come from a program that nobody trusts."""
    for step in told[:MOST_STEPS] if isinstance(told, list) else ():
        match step:
            case {
                "line": int(line),
                "event": "line" | "return" | "exception" as event,
                "function": str(function),
                "variables": dict(variables),
            }:
                shown = {str(k)[:80]: str(v)[:200] for k, v in list(variables.items())[:60]}
                value = {"value": str(step["value"])[:200]} if "value" in step else {}
                yield {"line": line, "event": event, "function": function[:80], "variables": shown, **value}
