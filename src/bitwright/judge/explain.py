"""What went wrong with a submission, for the one who wrote it: the smallest failing input, the kind of mistake, the
variables line by line, and what to try next. Never the solution.

What it is based on is said with it (`honest`). All programs run inside the walls; nothing here raises for what a
submission does. ProblemError, Busy and Unavailable pass through, as they do from `Judge.submit`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from . import faults, relatives, values
from .cases import Test, failure
from .judge import Judge, shown
from .lab import Lab, Trial, alike, smallest
from .problem import Mistake, Problem, ProblemError
from .recognise import Found, recognise
from .shrink import weight
from .verdict import Case, Result, Verdict

GENERIC = "Step through the variables, and stop where one first differs from what you would have written by hand."
STORY = 200
"""Most steps of the reference that are shown."""
CLEAR = "Work the smallest input out by hand before you change the code."


@dataclass(frozen=True)
class Explanation:
    """An explanation; `sentence` alone says the most important."""

    sentence: str
    next: str
    code: str
    idea: str = ""
    mistake: Found | None = None
    case: Case | None = None
    smallest: bool = False
    """Whether smaller inputs were looked for: `case` is then the smallest failing one that was found."""
    steps: list[dict[str, Any]] = field(default_factory=list)
    """The submission's variables, line by line: line, event, function, variables, and the value at a return."""
    cut: bool = False
    reference: list[dict[str, Any]] = field(default_factory=list)
    """How the reference's watched variables change: line and variables."""
    honest: str = ""

    def json(self) -> dict[str, Any]:
        """As plain data."""
        told = {name: getattr(self, name) for name in ("sentence", "next", "idea", "smallest", "steps", "cut", "code")}
        case = None
        if self.case:
            kept = ("name", "input", "expected", "yours", "error", "reason", "output")
            case = {name: getattr(self.case, name) for name in kept}
            case["difference"] = asdict(self.case.difference) if self.case.difference else None
        mistake = asdict(self.mistake) if self.mistake else None
        return {"mistake": mistake, "case": case, **told, "reference": self.reference, "honest": self.honest}


def explain(judge: Judge, problem: Problem, code: str, result: Result | None = None, owner: object = "") -> Explanation:
    """Explain a failed submission, given its verdict; where it is not at hand, it is judged again."""
    result = result or judge.submit(problem, code, owner)
    if result.verdict is Verdict.AC:
        return Explanation("It was accepted: there is nothing to explain.", "Go on to the next problem.", code)
    if result.verdict is Verdict.IE:
        return Explanation("The judge itself failed: it was our fault.", "Submit it again.", code)
    lab = Lab(judge, problem, code, owner)
    failed = result.failed
    if failed is None or result.verdict is Verdict.CE:
        return _unrun(lab, result)
    if failed.verdict is Verdict.TLE:
        return _late(lab, result, failed)
    if failed.error and failed.error.get("type") == "Forbidden":
        return _banned(lab, failed.reason, failed)
    if failed.kind == "growth":
        return _large(lab, failed)
    first = lab.learner(_test(lab, failed), quick=False)
    if not first.failed:
        return _shaky(lab, failed)
    return _wrong(lab, first)


def story(judge: Judge, problem: Problem, owner: object = "") -> dict[str, Any]:
    """The reference line by line on the first sample, for those who have seen the approach: code, input, expected,
    steps and cut. ProblemError where it cannot be run.
    """
    code, sample = problem.text("solution.py"), judge.tests(problem).samples[0]
    run = judge.answer(problem, code, sample.arguments, owner, {"most": STORY})
    if run.answer is None or "steps" not in run.answer:
        raise ProblemError(f"{problem.slug}/solution.py: {failure(run)}")
    return {
        "code": code, "input": shown(problem, sample.arguments), "expected": values.show(sample.expected),
        "steps": run.answer["steps"], "cut": run.answer.get("cut", False),
    }  # fmt: skip


def _test(lab: Lab, case: Case) -> Test:
    """The test that a case was, also where its arguments were not kept."""
    known = next((test for test in lab.tests.tests if test.name == case.name and test.kind == case.kind), None)
    return known or Test(case.name, case.kind, case.arguments, lab.reference([case.arguments])[0].value)


def _wrong(lab: Lab, first: Trial) -> Explanation:
    """A wrong answer, or an exception."""
    if stopped := faults.from_verdict(first.case):
        known = relatives.looking(lab, _with(lab, first.case.verdict))
        mistake = _named(known, stopped, first.case.reason)
        return _told(lab, first, mistake, "The judge measured it; what is said of the cause is the usual one.")
    trials = [first, *lab.around(first.test)]
    least = lab.shrunk(smallest(trials, first))
    if least not in trials:
        trials.append(least)
    tried = f"{len(trials)} inputs were tried"
    match = relatives.match(lab, trials)
    if match is None:
        found, least, honest = _guess(lab, trials, least)
        return _told(lab, least, found, f"{honest} {tried}.", smallest=True)
    if match.whole:
        honest = f"{tried}: on each a known wrong solution did the same as yours, {match.of} times wrongly."
    else:
        honest = (
            f"{tried}: where either is wrong, a known wrong solution did the same as yours {match.agreed} of "
            f"{match.of} times, so there may be more than one mistake."
        )
    return _told(lab, least, _found(match.mistake, "same answer as"), honest, smallest=True)


def _guess(lab: Lab, trials: list[Trial], least: Trial) -> tuple[Found | None, Trial, str]:
    """The kind of mistake where no known wrong solution does the same: the one that fits most of the failures, and the
    smallest input that it fits.
    """
    if least.case.error:
        said = "The exception is your program's own; what is said of its cause is the usual one."
        return faults.from_error(least.case, lab.code, lab.steps(least.test.arguments)[0]), least, said
    fitting: dict[str, list[tuple[Trial, Found]]] = {}
    failures = sorted((one for one in trials if alike(one, least)), key=lambda one: weight(one.test.arguments))
    for trial in failures if lab.problem.check.kind != "custom" else ():
        if found := _recognised(trial):
            fitting.setdefault(found.name, []).append((trial, found))
    if not fitting:
        return None, least, "No known kind of mistake fits; the input and the steps are what was measured."
    best = max(fitting.values(), key=len)
    honest = f"Guessed from your answers: it fits {len(best)} of {len(failures)} wrong ones, and others can look alike."
    return best[0][1], best[0][0], honest


def _recognised(trial: Trial) -> Found | None:
    try:
        arguments = [values.decode(one) for one in trial.test.arguments]
        return recognise(values.decode(trial.test.expected), values.decode(trial.answer.value), arguments)
    except (ValueError, TypeError, RecursionError):
        return None


def _told(lab: Lab, trial: Trial, mistake: Found | None, honest: str, smallest: bool = False) -> Explanation:
    case, seen = trial.case, _seen(trial.case)
    steps, cut = lab.steps(trial.test.arguments)
    return Explanation(
        sentence=f"{mistake.name}. {seen}" if mistake else seen, next=mistake.next if mistake else f"{CLEAR} {GENERIC}",
        code=lab.code, idea=lab.problem.idea, mistake=mistake, case=case, smallest=smallest, steps=steps, cut=cut,
        reference=lab.reference_steps(trial.test.arguments), honest=honest,
    )  # fmt: skip


def _late(lab: Lab, result: Result, failed: Case) -> Explanation:
    """A test that took too long: a loop without an end, or too much work."""
    for test in _small(lab) if failed.kind != "growth" else ():
        trial = lab.learner(test)
        if trial.case.verdict is Verdict.TLE:
            reason = f"On this small input it had not ended after {trial.case.cpu:.1f} s of CPU time"
            trial = replace(trial, case=replace(trial.case, reason=reason))
            found = faults.endless(lab.code, lab.steps(test.arguments)[0])
            mistake = _named(relatives.looking(lab, _with(lab, Verdict.TLE)), found)
            return _told(lab, trial, mistake, "It was run on a small input, and stopped; the steps are its first.")
        if lab.spent:
            break
    return _slow(lab, result, failed)


def _slow(lab: Lab, result: Result, failed: Case) -> Explanation:
    """Right answers that take too long; the steps are those of a small input, since the large one is large."""
    measured = faults.growth(result, lab.code)
    known = relatives.looking(lab, _with(lab, Verdict.TLE))
    looks = "is that of a known slow solution that yours looks like" if known else "is guessed from how the code looks"

    def name(steps: list[dict[str, Any]]) -> Found:
        return _named(known, faults.repeated(lab.code, steps) or measured, measured.says)

    return _beside(lab, failed, name, f"CPU time was measured; the cause {looks}.")


def _large(lab: Lab, failed: Case) -> Explanation:
    """All tests passed but those that are large."""
    known = relatives.looking(lab, _with(lab, failed.verdict))
    found = faults.from_verdict(failed) or (faults.from_error(failed, lab.code, []) if failed.error else faults.LARGE)
    honest = "Every smaller test passed; what is said of the cause is the usual one."
    return _beside(lab, failed, lambda _: _named(known, found, failed.reason), honest)


def _beside(lab: Lab, failed: Case, name: Callable[[list[dict[str, Any]]], Found], honest: str) -> Explanation:
    """A failure on an input that is too large to be stepped through, beside the steps of a small one."""
    test = max(_small(lab), key=lambda one: weight(one.arguments))
    steps, cut = lab.steps(test.arguments)
    mistake = name(steps)
    return Explanation(
        sentence=f"{mistake.name}. {_seen(failed)}", next=mistake.next, code=lab.code, idea=lab.problem.idea,
        mistake=mistake, case=failed, smallest=False, steps=steps, cut=cut,
        reference=lab.reference_steps(test.arguments),
        honest=f"{honest} The steps are those of a small input: {test.name}.",
    )  # fmt: skip


def _small(lab: Lab) -> list[Test]:
    """A few inputs that are small enough to be stepped through: the samples."""
    return sorted(lab.tests.samples, key=lambda test: weight(test.arguments))[:3]


def _unrun(lab: Lab, result: Result) -> Explanation:
    """A program that was not run: it does not compile, or does what is forbidden."""
    if result.verdict is Verdict.CE:
        mistake = faults.from_compiler(result)
        said = f"{mistake.name}. {mistake.says}"
        return Explanation(said, mistake.next, lab.code, mistake=mistake, honest="This is what Python says.")
    return _banned(lab, result.reason, None)


def _banned(lab: Lab, reason: str, case: Case | None) -> Explanation:
    """A program that does what its problem forbids; its relatives are refused, too."""
    refused = [
        mistake
        for mistake in _with(lab, Verdict.WA)
        if not lab.judge.submit(lab.problem, lab.problem.text(mistake.file), "house").cases
    ]
    known = relatives.looking(lab, refused)
    found = faults.forbidden(reason)
    mistake = Found(known.name, f"{found.says} {known.says}", known.next, "forbidden") if known else found
    honest = "What is forbidden was found in the compiled code, or when it ran."
    if known:
        honest += " The rest is known of a wrong solution that is refused for the same."
    return Explanation(
        f"{mistake.name}. {_sentence(reason)}", mistake.next, lab.code, lab.problem.idea, mistake, case, honest=honest
    )


def _shaky(lab: Lab, failed: Case) -> Explanation:
    """It failed, and now it does not."""
    says = "The same input was answered wrongly before and rightly now."
    next_ = "Look for chance, the clock, the order of a set, or a variable outside the function that keeps its value."
    mistake = Found("Not the same answer twice", says, next_)
    honest = "The failing test was run once more, and passed."
    return Explanation(f"{mistake.name}. {says}", next_, lab.code, lab.problem.idea, mistake, failed, honest=honest)


def _with(lab: Lab, verdict: Verdict) -> list[Mistake]:
    return [mistake for mistake in lab.problem.mistakes if mistake.verdict == verdict]


def _found(mistake: Mistake, how: str) -> Found:
    return Found(mistake.name, mistake.says, mistake.next, how)


def _named(known: Mistake | None, found: Found, before: str = "") -> Found:
    """What is known of a slow solution, with what was measured; or what was found where none is known."""
    if known is None:
        return found
    measured = before.split(". ")[0].rstrip(".") + ". " if before else ""
    return Found(known.name, f"{measured}{known.says}", known.next, found.how)


def _seen(case: Case) -> str:
    """What was seen of a failure, in a sentence."""
    return case.difference.text if case.difference else _sentence(case.reason)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""
