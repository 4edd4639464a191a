"""Does a problem hold? Its reference passes, its starter fails, every wrong submission gets its verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from . import cases as preparing
from . import checker, values
from .judge import Judge, parameters
from .problem import Problem, ProblemError
from .verdict import Verdict

SEEDS = 4
"""Other seeds of random cases under which the reference must pass and the tests must be valid."""
LEAST_HIDDEN, LEAST_WRONG = 4, 3


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    good: bool
    detail: str


def prove(judge: Judge, problem: Problem) -> Iterator[Finding]:
    """Look at a problem; one finding where all is well, else one a fault."""
    what = f"problem {problem.slug}"
    faults = []
    try:
        for fault in _faults(judge, problem):
            faults.append(fault)
            yield Finding(what, False, fault)
    except ProblemError as error:
        faults.append(str(error))
        yield Finding(what, False, str(error).removeprefix(f"{problem.slug}/"))
    if not faults:
        tests = judge.tests(problem).tests
        detail = f"{len(tests)} tests, {len(problem.mistakes)} wrong or slow submissions get their verdict"
        yield Finding(what, True, detail)


def _faults(judge: Judge, problem: Problem) -> Iterator[str]:
    tests = judge.tests(problem)
    names = [test.name for test in tests.tests]
    if not tests.samples:
        yield "cases.py: has no sample"
    if sum(test.kind == "hidden" for test in tests.tests) < LEAST_HIDDEN:
        yield f"cases.py: has fewer than {LEAST_HIDDEN} hidden cases"
    if len(set(names)) != len(names):
        yield "cases.py: two cases have one name"
    if sum(mistake.file.startswith("wrong/") for mistake in problem.mistakes) < LEAST_WRONG:
        yield f"wrong/: has fewer than {LEAST_WRONG} submissions"
    if problem.growth and not any(mistake.file.startswith("slow/") for mistake in problem.mistakes):
        yield "slow/: a complexity is asked for, and no submission misses it"
    if "[[ samples ]]" not in problem.statement:
        yield "problem.md: shows no samples: a line [[ samples ]] is missing"
    if len(problem.hints) and any(not hint for hint in problem.hints):
        yield "hints.md: a hint is empty"
    arguments = parameters(problem)
    if any(len(test.arguments) > len(arguments) for test in tests.tests):
        yield "cases.py: a case has more arguments than the starter's function"
    for seed in range(SEEDS + 1):  # the reference against itself: deterministic, and within its own tolerance
        again = preparing.prepare(judge.pool, problem, None, seed)
        for test, answer in zip(
            again.tests, preparing.reference(judge.pool, problem, [t.arguments for t in again.tests]), strict=True
        ):
            check = replace(problem.check, kind="exact") if problem.check.kind == "custom" else problem.check
            if difference := checker.compare(values.decode(test.expected), values.decode(answer), check):
                yield f"solution.py: two runs differ on {test.name} (seed {seed}): {difference.text}"
                break
    result = judge.submit(problem, problem.text("solution.py"), "house")
    if result.verdict is not Verdict.AC:
        yield f"solution.py: {result.sentence}. {result.reason}"
    result = judge.submit(problem, problem.text("starter.py"), "house")
    if result.verdict is Verdict.AC:
        yield "starter.py: is accepted as it stands"
    for mistake in problem.mistakes:
        result = judge.submit(problem, problem.text(mistake.file), "house")
        if result.verdict.value != mistake.verdict:
            got = f"{result.verdict}: {result.sentence}. {result.reason}"
            yield f"{mistake.file}: should get {mistake.verdict}, gets {got}"
