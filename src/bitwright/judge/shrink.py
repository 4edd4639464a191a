"""Smaller inputs by delta debugging, without leaving what a problem takes as input.

What is valid input is known to `generate` alone. So lists are shortened only where every argument is a plain value, and
only as far as what held in every test of the problem still holds: lists that were of one length (or of lengths a fixed
number apart) lose the same places, none becomes shorter than the shortest that was seen, and a number that was never
larger than a list was long stays so. Arrays are left alone (rows, groups and scales belong together in ways that their
shapes do not tell): there `generate` makes the small inputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations
from typing import Any

from .cases import Test

Arguments = list[Any]


def weight(arguments: Arguments) -> int:
    """How large an input is: the characters it takes."""
    return len(json.dumps(arguments))


class Rules:
    """What held in every test of a problem, arguments and answers encoded."""

    def __init__(self, tests: list[Test]) -> None:
        self.answers = {_kind(test.expected) for test in tests}
        """Kinds of answers seen: one that was never seen says that the input is not valid."""
        self.groups: list[list[int]] = []
        """Places of lists that are shortened together."""
        given = [test.arguments for test in tests]
        count = min(map(len, given), default=0)
        columns = [[one[i] for one in given] for i in range(count)]
        self._least: dict[int, int] = {}
        self._bounds: list[tuple[int, int]] = []
        if any(len(one) != count for one in given) or any(_has_array(one) for one in given):
            return
        lists = [i for i, column in enumerate(columns) if all(isinstance(one, list) for one in column)]
        numbers = [i for i, column in enumerate(columns) if all(type(one) is int for one in column)]
        self._least = {i: min(map(len, columns[i])) for i in lists}
        self._bounds = [
            (number, place)
            for number in numbers
            for place in lists
            if all(n <= len(one) for n, one in zip(columns[number], columns[place], strict=True))
        ]
        tied = {(i, j) for i, j in combinations(lists, 2) if _apart(columns[i], columns[j])}
        for i in lists:
            home = next((group for group in self.groups if (group[0], i) in tied), None)
            if home is None:
                self.groups.append([i])
            else:
                home.append(i)

    def allow(self, arguments: Arguments) -> bool:
        """Whether what held in every test holds for these arguments."""
        return all(len(arguments[i]) >= least for i, least in self._least.items()) and all(
            arguments[number] <= len(arguments[place]) for number, place in self._bounds
        )

    def allow_answer(self, answer: Any) -> bool:
        """Whether an answer of this kind was ever seen."""
        return _kind(answer) in self.answers


def _apart(one: list[list[Any]], other: list[list[Any]]) -> bool:
    """Whether the lengths of two columns of lists always differ by the same number."""
    return len({len(a) - len(b) for a, b in zip(one, other, strict=True)}) == 1


def _has_array(value: Any) -> bool:
    if isinstance(value, dict):
        return "array" in value or any(map(_has_array, value.values()))
    return isinstance(value, list) and any(map(_has_array, value))


def _kind(answer: Any) -> tuple[str, bool]:
    """What an encoded answer is, roughly: its type, and whether it is empty."""
    if isinstance(answer, dict):
        [(name, inner)] = answer.items()
        return name, not inner
    return type(answer).__name__, answer == []


def minimize(arguments: Arguments, rules: Rules, fails: Callable[[Arguments], bool]) -> Arguments:
    """The input with as much left out as possible while it still fails."""
    for group in rules.groups:
        chunk = max(1, -(-len(arguments[group[0]]) // 2))
        while chunk:
            arguments, shorter = _pass(arguments, rules, group, chunk, fails)
            if not (shorter and chunk == 1):
                chunk //= 2
    return arguments


def _pass(
    arguments: Arguments, rules: Rules, group: list[int], chunk: int, fails: Callable[[Arguments], bool]
) -> tuple[Arguments, bool]:
    """Try to leave out each stretch of `chunk` places once."""
    start, shorter = 0, False
    while start < len(arguments[group[0]]):
        found = [one[:start] + one[start + chunk :] if i in group else one for i, one in enumerate(arguments)]
        if rules.allow(found) and fails(found):
            arguments, shorter = found, True
        else:
            start += chunk
    return arguments, shorter


def lighter(tests: list[Test]) -> list[Test]:
    """Tests, the smallest input first."""
    return sorted(tests, key=lambda test: weight(test.arguments))
