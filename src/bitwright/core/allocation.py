"""Bits where they matter: of several formats per group of matrices, those with the least loss that fit a budget.

This is the multiple-choice knapsack problem (Sinha and Zoltners 1979, https://doi.org/10.1287/opre.27.3.503): of every
group exactly one option. The Lagrangian relaxation gives a bound and, with it, what cannot be part of a better answer;
what is left is searched whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

MOST = 20_000
"""Partial answers that are kept at once; beyond, the search ends with the best that is known, and with its bound."""


class Option(NamedTuple):
    """One way to store a group: what it takes of the budget, and what it loses."""

    label: str
    size: float
    loss: float


@dataclass(frozen=True)
class Allocation:
    """One option for each group; no choice within the budget loses less than `bound`."""

    chosen: Mapping[str, Option]
    bound: float

    @property
    def size(self) -> float:
        """What all take of the budget together."""
        return sum(option.size for option in self.chosen.values())

    @property
    def loss(self) -> float:
        """What all lose together."""
        return sum(option.loss for option in self.chosen.values())


class _Step(NamedTuple):
    """From one option of a group to the next larger one of its convex hull; `slope` is loss saved per size."""

    slope: float
    group: str
    option: Option


def allocate(groups: Mapping[str, Sequence[Option]], budget: float) -> Allocation:
    """The options with the least loss in all whose sizes sum to at most `budget`. Raises ValueError if none fit.

    >>> groups = {"a": [Option("2", 2, 9.0), Option("4", 4, 1.0)], "b": [Option("2", 2, 3.0), Option("4", 4, 2.0)]}
    >>> {name: option.label for name, option in allocate(groups, 6).chosen.items()}
    {'a': '4', 'b': '2'}
    """
    fronts = {name: pareto(options) for name, options in groups.items()}
    first = {name: front[0] for name, front in fronts.items()}
    start = Allocation(first, 0.0)
    if start.size > budget:
        raise ValueError(f"the smallest choice takes {start.size:g}, the budget is {budget:g}")
    chosen, free, slope, bound = dict(first), budget - start.size, 0.0, None
    for step in _steps(fronts):
        more = step.option.size - chosen[step.group].size
        if more <= free:
            chosen[step.group], free = step.option, free - more
        elif bound is None:
            slope, bound = step.slope, Allocation(chosen, 0.0).loss - step.slope * free
    best = Allocation(chosen, 0.0)
    if bound is None:
        return Allocation(chosen, best.loss)  # all have their largest option
    found = _search(fronts, budget, slope, bound, best)
    return Allocation(found.chosen, min(bound, found.loss))


def frontier(groups: Mapping[str, Sequence[Option]]) -> Iterator[Allocation]:
    """The choices that no other dominates by the Lagrangian, from the smallest to the one with the least loss."""
    fronts = {name: pareto(options) for name, options in groups.items()}
    chosen = {name: front[0] for name, front in fronts.items()}
    yield Allocation(dict(chosen), sum(option.loss for option in chosen.values()))
    for step in _steps(fronts):
        chosen[step.group] = step.option
        yield Allocation(dict(chosen), sum(option.loss for option in chosen.values()))


def pareto(options: Sequence[Option]) -> list[Option]:
    """The options, by size, each of which loses less than all smaller ones."""
    front: list[Option] = []
    for option in sorted(options, key=lambda o: (o.size, o.loss)):
        if not front or option.loss < front[-1].loss:
            front.append(option)
    return front


def _steps(fronts: Mapping[str, Sequence[Option]]) -> list[_Step]:
    """All steps along the convex hulls, the one that saves the most loss per size first."""
    steps = []
    for name, front in fronts.items():
        hull: list[Option] = []
        for option in front:
            while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], option):
                hull.pop()
            hull.append(option)
        steps += [_Step(_slope(a, b), name, b) for a, b in pairwise(hull)]
    return sorted(steps, key=lambda step: -step.slope)  # stable: a group's own steps keep their order


def _slope(a: Option, b: Option) -> float:
    return (a.loss - b.loss) / (b.size - a.size)


class _Partial(NamedTuple):
    """Options of the groups so far, as a chain: what they take and lose, and by how much they miss the relaxation."""

    size: float
    loss: float
    missed: float
    before: _Partial | None
    option: Option | None


def _search(
    fronts: Mapping[str, Sequence[Option]], budget: float, slope: float, bound: float, best: Allocation
) -> Allocation:
    """The best choice of all, or `best`: options that miss the relaxation by more than `best` does are left out."""
    gap = best.loss - bound
    names = list(fronts)
    least = {name: min(o.loss + slope * o.size for o in fronts[name]) for name in names}
    ahead = sum(fronts[name][0].size for name in names)
    partials = [_Partial(0.0, 0.0, 0.0, None, None)]
    for name in names:
        ahead -= fronts[name][0].size
        grown = [
            _Partial(p.size + o.size, p.loss + o.loss, missed, p, o)
            for p in partials
            for o in fronts[name]
            if p.size + o.size + ahead <= budget and (missed := p.missed + o.loss + slope * o.size - least[name]) <= gap
        ]
        partials = []
        for p in sorted(grown, key=lambda p: (p.size, p.loss)):
            if not partials or p.loss < partials[-1].loss:
                partials.append(p)
        if not partials or len(partials) > MOST:
            return best
    found: _Partial | None = min(partials, key=lambda p: p.loss)
    assert found is not None
    if found.loss >= best.loss:
        return best
    options: list[Option] = []
    while found is not None and found.option is not None:
        options.append(found.option)
        found = found.before
    return Allocation(dict(zip(names, reversed(options), strict=True)), bound)
