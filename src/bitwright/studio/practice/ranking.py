"""Quality against bits: what accepted submissions of a problem with a rank.py are measured by.

`rank(arguments, yours) -> (quality, bits)` of the problem's rank.py is called inside the walls for every hidden test;
both are averaged. More quality is better, fewer bits are better. The first line of its docstring says what quality is,
with its unit: "SQNR, dB".
"""

from __future__ import annotations

import ast
import math
from statistics import fmean
from typing import Any

from bitwright.judge import values
from bitwright.judge.cases import trusted
from bitwright.judge.judge import Judge
from bitwright.judge.pool import Broken, Busy
from bitwright.judge.problem import Problem, ProblemError

FILE = "rank.py"


def is_ranked(problem: Problem) -> bool:
    """Whether solutions of a problem trade quality against bits."""
    return (problem.folder / FILE).is_file()


def unit(problem: Problem) -> str:
    """What quality is, with its unit. ProblemError where rank.py cannot be read."""
    try:
        text = ast.get_docstring(ast.parse(problem.text(FILE))) or ""
    except SyntaxError as error:
        raise ProblemError(f"{problem.slug}/{FILE}: {error}") from error
    return text.partition("\n")[0].rstrip(".") or "Quality"


def measure(judge: Judge, problem: Problem, code: str) -> dict[str, float] | None:
    """Quality and bits of an accepted program; None where the problem has no rank, or it cannot be measured."""
    if not is_ranked(problem):
        return None
    try:
        calls = []
        for test in judge.tests(problem).tests:
            if test.kind == "hidden":
                answer = judge.answer(problem, code, test.arguments, "house").answer or {}
                calls.append({"function": "rank", "arguments": [{"tuple": test.arguments}, answer["results"][0]]})
        found = [values.decode(one) for one in trusted(judge.pool, problem, FILE, calls)]
        quality, bits = (fmean(float(pair[i]) for pair in found) for i in (0, 1))
    except (ProblemError, Broken, Busy, KeyError, TypeError, ValueError, IndexError):
        return None
    return {"quality": quality, "bits": bits} if math.isfinite(quality) and math.isfinite(bits) else None


def ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with `quality`, `bits` and `name`, each with its `rank`: 1 for those that no other beats in both, 2 for
    those that only rows of rank 1 beat, and so on; within a rank the fewest bits first. Of one name's rows only those
    stay that its others do not beat; of equal ones the first.
    """
    left = [
        row
        for i, row in enumerate(rows)
        if not any(
            other["name"] == row["name"] and (_beats(other, row) or (j < i and _equal(other, row)))
            for j, other in enumerate(rows)
        )
    ]
    found: list[dict[str, Any]] = []
    rank = 1
    while left:
        best = [row for row in left if not any(_beats(other, row) for other in left)]
        found += [{**row, "rank": rank} for row in sorted(best, key=lambda row: (row["bits"], -row["quality"]))]
        left = [row for row in left if row not in best]
        rank += 1
    return found


def _beats(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether `a` is no worse than `b` in both, and not the same."""
    return a["quality"] >= b["quality"] and a["bits"] <= b["bits"] and not _equal(a, b)


def _equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return bool(a["quality"] == b["quality"] and a["bits"] == b["bits"])
