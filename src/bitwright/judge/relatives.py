"""Known wrong solutions that answer as a submission does: its mistake is most likely theirs."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass

from .lab import Answer, Lab, Trial
from .problem import Mistake

CLOSE = 0.6
"""Least share of the inputs on which either is wrong that must be answered alike, where not all are."""
LOOKS = 0.55
"""Least likeness of two programs' looks for one to be told by the other, where answers say nothing."""


@dataclass(frozen=True)
class Match:
    """A known wrong solution, and on how many inputs it agrees."""

    mistake: Mistake
    agreed: int
    of: int
    whole: bool
    """Whether it agrees on all inputs, also on those where both are right."""


def match(lab: Lab, trials: list[Trial]) -> Match | None:
    """The relative of a submission: the same answer on the failing test, which is the first of the trials, and on as
    many others as possible. Of those that cannot be told apart by their answers, the one that looks most alike.
    """
    inputs = [trial.test.arguments for trial in trials]
    found: list[tuple[float, float, Match]] = []
    for mistake in lab.problem.mistakes:
        if mistake.verdict == "TLE":
            continue
        answers = lab.relative(mistake, inputs)
        if not lab.same(answers[0], trials[0].answer):
            continue
        agreed = [lab.same(answer, trial.answer) for answer, trial in zip(answers, trials, strict=True)]
        wrong = [
            trial.failed or not lab.same(answer, Answer(trial.test.expected))
            for answer, trial in zip(answers, trials, strict=True)
        ]
        both, either = sum(a and w for a, w in zip(agreed, wrong, strict=True)), sum(wrong)
        share = both / either if either else 0.0
        if all(agreed) or (share >= CLOSE and both > 1):
            looks = likeness(lab.code, lab.problem.text(mistake.file))
            whole = all(agreed)
            found.append((share, looks, Match(mistake, both, either, whole)))
    return max(found, key=lambda one: one[:2])[2] if found else None


def looking(lab: Lab, mistakes: list[Mistake]) -> Mistake | None:
    """The one of some known solutions that a submission looks like."""
    rated = [(likeness(lab.code, lab.problem.text(one.file)), one) for one in mistakes]
    best = max(rated, key=lambda pair: pair[0], default=(0.0, None))
    return best[1] if best[0] >= LOOKS else None


def likeness(one: str, other: str) -> float:
    """How alike two programs look, 0 to 1: by the kinds of their statements, operators, calls and loops in loops."""
    a, b = _features(one), _features(other)
    return sum((a & b).values()) / max(1, sum((a | b).values()))


def _features(code: str) -> Counter[str]:
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Counter()
    found: Counter[str] = Counter()
    waiting: list[tuple[ast.AST, int]] = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        name = type(node).__name__
        loop = isinstance(node, ast.For | ast.While | ast.comprehension)
        if not isinstance(node, ast.Name | ast.arg | ast.expr_context | ast.alias | ast.Module):
            found[f"{name} {depth}" if loop else name] += 1
        match node:
            case ast.Call(func=ast.Name(id=called)) | ast.Attribute(attr=called):
                found[f"{called}()"] += 2
            case ast.Constant(value=bool() | int() | float() | None):
                found[f"={node.value!r}"] += 1
        for child in ast.iter_child_nodes(node):
            waiting.append((child, depth + loop))
    return found
