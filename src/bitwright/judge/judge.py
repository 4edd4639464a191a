"""From a submission to its verdict: compile, look for what is forbidden, run test by test, measure how it grows."""

from __future__ import annotations

import ast
import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import cases as preparing
from . import checker, values
from .cases import Test, Tests
from .growth import Measured
from .pool import Broken, Pool, Run
from .problem import Problem, ProblemError
from .values import Unreadable
from .verdict import Case, Difference, Result, Verdict

MOST_CODE = 64 << 10
SHOWN = 600
Told = Callable[[Case, int], None]


class Judge:
    """Judges submissions with the zygotes of a pool; tests are kept in `cache`."""

    def __init__(self, pool: Pool, cache: Path | None = None) -> None:
        self.pool, self.cache = pool, cache
        self._tests: dict[str, Tests] = {}

    def tests(self, problem: Problem) -> Tests:
        """A problem's tests. ProblemError where its own programs fail."""
        key = problem.fingerprint
        if key not in self._tests:
            self._tests[key] = preparing.prepare(self.pool, problem, self.cache)
        return self._tests[key]

    def submit(self, problem: Problem, code: str, owner: object = "", told: Told | None = None) -> Result:
        """The verdict of a submission; `told` hears of every test as it is judged. No program can make it raise.

        Busy and Unavailable pass through: nothing was judged then. A fault of ours is the verdict IE.
        """
        tests = self.tests(problem).tests
        return self._judge(problem, code, tests, owner, told, True)

    def run(self, problem: Problem, code: str, own: list[Test], owner: object = "") -> Result:
        """The samples and some tests of one's own, all of them, whatever fails; never an attempt."""
        return self._judge(problem, code, [*self.tests(problem).samples, *own], owner, None, False)

    def own(self, problem: Problem, text: str, name: str = "yours", owner: object = "house") -> Test:
        """A test from what somebody typed: one Python literal per line, with or without `name =`, in the order of the
        arguments; lists stand for arrays where the samples have arrays. ProblemError says what does not fit, also where
        the reference cannot take it.
        """
        arguments = _literals(problem, text, self.tests(problem).samples[0].arguments)
        [expected] = preparing.reference(self.pool, problem, [arguments], owner, problem.limits)
        return Test(name, "own", arguments, expected)

    def answer(
        self,
        problem: Problem,
        code: str,
        arguments: list[Any],
        owner: object = "",
        trace: dict[str, Any] | None = None,
        most: int = 0,
    ) -> Run:
        """One call of a program, as it went; with `trace` ({most, names}) line by line. `most` bytes of answer."""
        request = {
            "code": code,
            "calls": [{"function": problem.function, "arguments": arguments}],
            "forbid": _forbid(problem),
        }
        limits = replace(problem.limits, answer=most) if most else problem.limits
        return self.pool.run({**request, "trace": trace} if trace else request, problem.needs, limits, owner)

    # --- one submission

    def _judge(
        self, problem: Problem, code: str, tests: list[Test], owner: object, told: Told | None, submitted: bool
    ) -> Result:
        total = len(tests)
        try:
            refused, base = self._inspect(problem, code, total, owner)
            if refused:
                return refused
            judged: list[Case] = []
            for test in tests:
                judged.append(self.case(problem, code, test, owner))
                if told:
                    told(judged[-1], total)
                if submitted and judged[-1].verdict is not Verdict.AC:
                    break
            result = self._sum(problem, judged, total)
            if submitted and result.verdict is Verdict.AC and problem.growth:
                return self._growth(problem, code, result, base, owner)
            return result
        except Broken as error:
            return self._result(Verdict.IE, f"The judge itself failed: {error}", [], total)

    def _result(
        self, verdict: Verdict, sentence: str, judged: list[Case], total: int, reason: str = "", line: int = 0
    ) -> Result:
        return Result(
            verdict=verdict, sentence=sentence, cases=judged, total=total, cpu=sum(c.cpu for c in judged),
            memory=max((c.memory for c in judged), default=0), tier=self.pool.tier, reason=reason, line=line,
        )  # fmt: skip

    def _inspect(self, problem: Problem, code: str, total: int, owner: object) -> tuple[Result | None, float]:
        """The verdict of a program that need not be run, and the CPU time of one that does nothing."""
        if len(code.encode(errors="replace")) > MOST_CODE:
            return self._result(Verdict.CE, f"The program is longer than {MOST_CODE >> 10} kB", [], total), 0
        request: dict[str, Any] = {"code": code, "calls": [], "forbid": _forbid(problem), "inspect": True}
        run = self.pool.run(request, problem.needs, problem.limits, owner)
        answer = run.answer or {}
        if "uses" not in answer:
            error = answer.get("error", {})
            reason = f"{error['type']}: {error['text']}" if error else preparing.failure(run)
            line = error.get("line", 0)
            return self._result(
                Verdict.CE, f"Does not compile{f': line {line}' if line else ''}", [], total, reason, line
            ), 0
        for operation, what, line in answer["uses"]:
            reason = _ban(problem, operation, what)
            return self._result(Verdict.WA, f"Not allowed here: {what}, line {line}", [], total, reason, line), 0
        return None, run.cpu

    def case(self, problem: Problem, code: str, test: Test, owner: object = "") -> Case:
        """One test, run and judged."""
        return self.judged(problem, test, self.answer(problem, code, test.arguments, owner, most=_room(test)))

    def judged(self, problem: Problem, test: Test, run: Run) -> Case:
        """What a run of a test is worth."""
        large = test.kind == "growth"
        case = Case(
            name=test.name, kind=test.kind, verdict=Verdict.AC, cpu=run.cpu, memory=run.memory, wall=run.wall,
            arguments=test.arguments, input=test.name if large else shown(problem, test.arguments),
            output=run.output + run.errors, expected="" if large else values.show(test.expected, SHOWN),
        )  # fmt: skip
        verdict, reason = outcome(run, problem)
        answer = run.answer or {}
        if "error" in answer:
            error = answer["error"]
            if forbidden := _forbidden(error, problem):
                operation, what, line = forbidden
                reason = f"{_ban(problem, operation, what)} (seen at run time, line {line})"
            return replace(case, verdict=verdict, error=error, reason=reason)
        if verdict is not Verdict.AC:
            return replace(case, verdict=verdict, reason=reason)
        try:
            [result] = answer["results"]
            yours = values.decode(result)
            case = replace(case, yours="" if large else values.show(result, SHOWN))
        except (KeyError, TypeError, ValueError, Unreadable, RecursionError) as error:
            return replace(case, verdict=Verdict.RTE, reason=f"its answer cannot be read ({error})")
        difference = self._compare(problem, test, result, yours)
        return replace(case, verdict=Verdict.WA, difference=difference) if difference else case

    def _compare(self, problem: Problem, test: Test, result: Any, yours: Any) -> Difference | None:
        if problem.check.kind != "custom":
            return checker.compare(values.decode(test.expected), yours, problem.check)
        call = {"function": "check", "arguments": [{"tuple": test.arguments}, test.expected, result]}
        try:
            [said] = preparing.trusted(self.pool, problem, "check.py", [call])
        except ProblemError as error:  # `content check` proves that it takes right answers: this one is of another form
            said = f"Your answer is of a form that cannot be checked ({str(error).partition(': ')[2]})."
        if said is None:
            return None
        return Difference("custom", str(said), "", values.show(test.expected, SHOWN), values.show(result, SHOWN))

    def _sum(self, problem: Problem, judged: list[Case], total: int) -> Result:
        failed = next(((i, c) for i, c in enumerate(judged, 1) if c.verdict is not Verdict.AC), None)
        if failed is None:
            return self._result(Verdict.AC, f"Accepted: {total} of {total} tests", judged, total)
        number, case = failed
        words = case.verdict.words
        sentence = f"{words[0].upper()}{words[1:]} on test {number} of {total}: {case.name}"
        reason = case.difference.text if case.difference else case.reason
        return self._result(case.verdict, sentence, judged, total, reason, case.error["line"] if case.error else 0)

    def _growth(self, problem: Problem, code: str, result: Result, base: float, owner: object) -> Result:
        """The same result, or one that says how the time grew where that is more than the problem allows."""
        assert problem.growth is not None
        measured = None
        for _ in range(2):  # once more where it fails: a busy machine can make a curve look steep, never flat
            seconds: list[float] = []
            for test in self.tests(problem).growth:
                case = self.case(problem, code, test, owner)
                if case.verdict not in (Verdict.AC, Verdict.TLE):
                    return self._sum(problem, [*result.cases, case], result.total + 1)
                seconds.append(max(case.cpu - base, 1e-4))
                if case.verdict is Verdict.TLE:
                    break
            late = case.verdict is Verdict.TLE
            if measured and not late and not measured.late:
                seconds = [min(pair) for pair in zip(seconds, measured.seconds, strict=True)]
            sizes = list(problem.growth.sizes[: len(seconds)])
            measured = Measured(sizes, seconds, problem.growth.exponent, late)
            if measured.good:
                return replace(result, growth=measured.json())
            if late:
                break
        assert measured is not None
        case = replace(case, verdict=Verdict.TLE, reason=measured.text)
        sentence = "Too slow: it grows too fast with the input"
        failed = self._result(Verdict.TLE, sentence, [*result.cases, case], result.total, measured.text)
        return replace(failed, growth=measured.json())


def outcome(run: Run, problem: Problem) -> tuple[Verdict, str]:
    """What a run is, before its answer is compared; AC where there is one to compare."""
    limits = problem.limits
    if run.killed == "output":
        return Verdict.OLE, f"it printed more than {limits.output >> 10} kB"
    if run.killed == "answer":
        return Verdict.OLE, "its answer is much larger than the expected one"
    if run.cpu > limits.cpu or run.signal == signal.SIGXCPU:
        return Verdict.TLE, f"it used {run.cpu:.1f} s of CPU time, {limits.cpu:g} s are allowed"
    if run.killed == "wall":
        return (
            Verdict.TLE,
            f"it did not end within {limits.wall:g} s on the clock, having used {run.cpu:.1f} s of CPU time",
        )
    if run.answer is not None and "error" in run.answer:
        error = run.answer["error"]
        if error["type"] == "MemoryError":
            return Verdict.MLE, f"it asked for more than {limits.memory} MB"
        if _forbidden(error, problem):
            return Verdict.WA, ""
        if (
            error["phase"] == "load"
            and error["type"] == "NameError"
            and error["text"].startswith("there is no function")
        ):
            return Verdict.CE, error["text"]
        return Verdict.RTE, f"{error['type']}: {error['text']}".rstrip(": ")
    if run.signal:
        name = (
            signal.Signals(run.signal).name
            if run.signal in signal.Signals.__members__.values()
            else f"signal {run.signal}"
        )
        return Verdict.RTE, f"it crashed ({name})"
    if run.answer is None:
        return Verdict.RTE, run.strange or f"it ended by itself with exit code {run.code}, before it returned"
    return Verdict.AC, ""


def _forbid(problem: Problem) -> dict[str, Any] | None:
    return (
        {"operations": problem.operations, "modules": problem.modules}
        if problem.operations or problem.modules
        else None
    )


def _room(test: Test) -> int:
    """Bytes that an answer may have: reading one takes time and memory out here, so not much more than a right one."""
    return (256 << 10) + 8 * len(json.dumps(test.expected))


def _forbidden(error: dict[str, Any], problem: Problem) -> tuple[str, str, str] | None:
    """Operation, what and line of what a program was stopped for; None for an exception of its own of that name."""
    match error["text"].split("\n") if error["type"] == "Forbidden" and _forbid(problem) else ():
        case [operation, what, line]:
            return operation, what, line
    return None


def _ban(problem: Problem, operation: str, what: str) -> str:
    if operation == "reflection":
        forbidden = ", ".join((*problem.operations, *problem.modules))
        return f"This problem forbids {forbidden}, so {what}, which can hide it, is not allowed either."
    if operation == "import":
        return f"{what} is not allowed in this problem."
    return f"{what} is {operation}, and this problem forbids {', '.join(problem.operations)}."


def parameters(problem: Problem) -> list[str]:
    """The names of the arguments of what the learner writes, as the starter has them."""
    for node in ast.walk(ast.parse(problem.text("starter.py"))):
        if isinstance(node, ast.FunctionDef) and node.name == problem.function:
            return [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    raise ProblemError(f"{problem.slug}/starter.py: has no function {problem.function}")


def shown(problem: Problem, arguments: list[Any]) -> str:
    """Arguments as a person would type them, one per line."""
    names = parameters(problem)
    room = max(120, SHOWN // max(1, len(arguments)))
    return "\n".join(f"{name} = {values.show(one, room)}" for name, one in zip(names, arguments, strict=False))


def _literals(problem: Problem, text: str, like: list[Any]) -> list[Any]:
    names = parameters(problem)
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ProblemError(f"your input cannot be read: {error}") from error
    given: dict[str, Any] = {}
    for node in body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.Expr(value=value):
                name = next((n for n in names if n not in given), "")
            case _:
                raise ProblemError(f"line {node.lineno}: write each argument as a literal, like {names[0]} = [1, 2]")
        if name not in names or name in given:
            raise ProblemError(f"line {node.lineno}: the arguments are {', '.join(names)}, once each")
        try:
            given[name] = ast.literal_eval(value)
        except (ValueError, TypeError, RecursionError, MemoryError) as error:
            raise ProblemError(
                f"line {node.lineno}: {name} must be a literal: numbers, text, lists, True, None"
            ) from error
    missing = [name for name in names[: len(like)] if name not in given]
    if missing:
        raise ProblemError(f"{missing[0]} is missing: give {', '.join(names)}")
    return [_like(given[name], sample, name) for name, sample in zip(names, like, strict=False)]


def _like(value: Any, sample: Any, name: str) -> Any:
    """A typed value, encoded; an array where the sample has one."""
    if not isinstance(sample, dict) or "array" not in sample or value is None:
        return values.encode(value)
    dtype, _, _, kind = sample["array"]
    if kind == "scalar" and isinstance(value, bool | int | float):
        flat, shape = [value], []
    else:
        shape = _shape(value, name)
        flat = list(_flat(value))
    try:
        return values.encode_items(dtype, shape, flat, kind)
    except Unreadable as error:
        raise ProblemError(f"{name}: {error}") from error


def _shape(value: Any, name: str) -> list[int]:
    if not isinstance(value, list | tuple):
        return []
    shapes = {tuple(_shape(one, name)) for one in value}
    if len(shapes) > 1:
        raise ProblemError(f"{name}: rows of an array must be of one length")
    return [len(value), *(shapes.pop() if shapes else ())]


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _flat(one)
    else:
        yield value
