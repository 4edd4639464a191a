"""Does a problem hold? Its reference passes, its starter fails, every wrong submission gets its verdict."""

from __future__ import annotations

import random
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
    """Look at a problem; one finding where all is well, else one per fault."""
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
        yield "slow/: a complexity is required, and no submission misses it"
    if "[[ samples ]]" not in problem.statement:
        yield "problem.md: shows no samples: a line [[ samples ]] is missing"
    if len(problem.hints) and any(not hint for hint in problem.hints):
        yield "hints.md: a hint is empty"
    arguments = parameters(problem)
    if any(len(test.arguments) > len(arguments) for test in tests.tests):
        yield "cases.py: a case has more arguments than the starter's function"
    for seed in range(SEEDS + 1):
        yield from _unstable(judge, problem, seed)
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


def _unstable(judge: Judge, problem: Problem, seed: int) -> Iterator[str]:
    """Where the reference misses its own tolerance: run again, and on random inputs changed by a unit in the last
    place, as another order of summation would. There it stands on a tie, or the tolerance is too narrow for anybody.
    """
    # What grows is the same under every seed, and takes the longest: it is made once, with the tests themselves.
    alone = replace(problem, growth=None)
    tests = preparing.prepare(judge.pool, alone, None, seed).tests if seed else judge.tests(problem).tests
    rough = [test for test in tests if test.kind == "random" and problem.check.kind != "custom"]
    toss = random.Random(seed).random
    inputs = [test.arguments for test in tests] + [values.nudged(test.arguments, toss) for test in rough]
    answers = preparing.reference(judge.pool, problem, inputs)
    check = replace(problem.check, kind="exact") if problem.check.kind == "custom" else problem.check
    for i, (test, answer) in enumerate(zip(tests + rough, answers, strict=True)):
        if difference := checker.compare(values.decode(test.expected), values.decode(answer), check):
            how = "two runs differ" if i < len(tests) else "inputs changed by a unit in the last place differ"
            yield f"solution.py: {how} on {test.name} (seed {seed}): {difference.text}"
            return
