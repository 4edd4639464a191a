"""Budgets: against all choices there are, and at their edges."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given

from bitwright.core import allocation
from bitwright.core.allocation import Allocation, Option, allocate, frontier, pareto

OPTION = st.tuples(st.integers(1, 30), st.integers(0, 50))
GROUPS = st.lists(st.lists(OPTION, min_size=1, max_size=4), min_size=1, max_size=5)


def named(groups: list[list[tuple[int, int]]]) -> dict[str, list[Option]]:
    return {
        f"g{i}": [Option(f"{j}", float(size), float(loss)) for j, (size, loss) in enumerate(options)]
        for i, options in enumerate(groups)
    }


def by_trying(groups: dict[str, list[Option]], budget: float) -> float | None:
    """The least loss of all choices that fit."""
    fitting = [
        sum(option.loss for option in choice)
        for choice in itertools.product(*groups.values())
        if sum(option.size for option in choice) <= budget
    ]
    return min(fitting, default=None)


@given(GROUPS, st.integers(1, 120))
def test_no_choice_is_better(drawn: list[list[tuple[int, int]]], budget: int) -> None:
    groups = named(drawn)
    least = by_trying(groups, budget)
    if least is None:
        with pytest.raises(ValueError, match="the smallest choice takes"):
            allocate(groups, budget)
        return
    found = allocate(groups, budget)
    assert list(found.chosen) == list(groups)
    assert all(option in groups[name] for name, option in found.chosen.items())
    assert found.size <= budget
    assert found.loss == least
    assert found.bound <= least + 1e-9


@given(GROUPS, st.integers(1, 120))
def test_the_bound_holds_where_the_search_is_cut_short(drawn: list[list[tuple[int, int]]], budget: int) -> None:
    groups = named(drawn)
    least = by_trying(groups, budget)
    if least is None:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allocation, "MOST", 1)
        found = allocate(groups, budget)
    assert found.size <= budget
    assert found.bound - 1e-9 <= least <= found.loss


@given(GROUPS)
def test_the_frontier_leads_from_the_smallest_to_the_best(drawn: list[list[tuple[int, int]]]) -> None:
    groups = named(drawn)
    found = list(frontier(groups))
    sizes, losses = [step.size for step in found], [step.loss for step in found]
    assert sizes == sorted(set(sizes))
    assert losses == sorted(set(losses), reverse=True)
    assert sizes[0] == sum(min(o.size for o in options) for options in groups.values())
    assert losses[-1] == sum(min(o.loss for o in options) for options in groups.values())
    assert all(isinstance(step, Allocation) and step.loss <= by_trying(groups, step.size) for step in found)


def test_a_larger_option_that_loses_more_is_left_out() -> None:
    options = [Option("a", 2, 5), Option("b", 3, 6), Option("c", 4, 1), Option("d", 4, 2)]
    assert [option.label for option in pareto(options)] == ["a", "c"]


def test_many_groups_end_soon_and_close_to_the_bound() -> None:
    """A model of 80 blocks, 5 groups each: the search is over what the relaxation leaves open."""
    groups = {
        f"{i}": [
            Option(f"{bits}", bits * (1 + i % 5), (1 + (i * 7919) % 97) * 4.0**-bits) for bits in (2, 3, 4, 5, 6, 8)
        ]
        for i in range(400)
    }
    found = allocate(groups, 3.7 * sum(1 + i % 5 for i in range(400)))
    assert found.loss <= 1.001 * found.bound
