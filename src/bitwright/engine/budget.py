"""Formats by what they cost: the plan whose output fits the recipe's budget and loses the least."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any

from bitwright.core.allocation import Allocation, Option, allocate, frontier
from bitwright.engine.journal import Journal
from bitwright.errors import RecipeError
from bitwright.events import Event, Note
from bitwright.models.model import Cost, Item, Plan
from bitwright.recipe import Budget
from bitwright.words import megabytes, plural

KEPT = "cost:"
"""Begins the journal's names of what parts cost."""
POINTS = 24
"""Points of the frontier that the certificate holds."""


def require(plan: Plan) -> None:
    """Raise RecipeError where the plan's budget is smaller than the smallest output."""
    least, most = _ends(plan)
    budget = plan.recipe.budget
    assert budget is not None
    limit = bytes_of(plan, budget)
    if limit is not None and limit < least:
        raise RecipeError(
            f"the budget is {_told(plan, limit)}, and the smallest output takes {_told(plan, least)}",
            where=_option(budget), fix=f"Give at least that (at most {_told(plan, most)} is of use)", key="budget",
        )  # fmt: skip


def bytes_of(plan: Plan, budget: Budget) -> int | None:
    """The bytes that a budget allows the output; None where it limits the loss."""
    if budget.bpw is not None:
        return int(budget.bpw * plan.model.parameters / 8)
    return budget.size


def final_bytes(plan: Plan) -> int:
    """Bytes of the finished output's weight files; as long as a budget is unspent, at most so many."""
    budget = plan.recipe.budget
    if budget is None or plan.spent is not None:
        return plan.sink.final_bytes
    limit, largest = bytes_of(plan, budget), _ends(plan)[1]
    return largest if limit is None else min(limit, largest)


def lines(plan: Plan) -> list[str]:
    """What the plan says of a budget that is not spent yet."""
    choices = plan.model.choices(plan)
    names = dict.fromkeys(item.format.name for forms in choices.values() for item in forms)
    least, most = _ends(plan)
    told = plural(len(choices), plan.model.kind.words.part, plan.model.kind.words.parts)
    return [
        f"{told} in formats chosen by what they cost on text: {', '.join(names)}",
        f"outputs of {_told(plan, least)} to {_told(plan, most)} are possible",
    ]


def _ends(plan: Plan) -> tuple[int, int]:
    """Bytes of the smallest and of the largest output."""
    choices = plan.model.choices(plan)
    smallest, largest = (
        replace(plan, items={name: pick(forms, key=plan.stored) for name, forms in choices.items()}).sink.final_bytes
        for pick in (min, max)
    )
    return smallest, largest


def _told(plan: Plan, size: int) -> str:
    return f"{megabytes(size)} ({8 * size / max(plan.model.parameters, 1):.2f} bits per parameter)"


def _option(budget: Budget) -> str:
    return "--bpw" if budget.bpw is not None else "--size" if budget.size is not None else "--max-kl"


def spend(plan: Plan, data: Any, journal: Journal) -> Generator[Event, None, Plan]:
    """The plan with the formats that keep to its budget and lose the least, as predicted.

    Costs are kept in the journal. Raises RecipeError where no formats keep to the budget.
    """
    choices, budget = plan.model.choices(plan), plan.recipe.budget
    assert budget is not None
    costs: dict[str, Mapping[str, float] | None] = {
        name: journal.kept[f"{KEPT}{name}"] for name in choices if f"{KEPT}{name}" in journal.kept
    }
    for event in plan.model.costs(plan, data, choices, costs.__contains__):
        if isinstance(event, Cost):
            costs[event.name] = event.nats
            journal.keep(f"{KEPT}{event.name}", event.nats)
        else:
            yield event
    groups = _groups(plan, choices, costs)
    chosen = _chosen(plan, budget, choices, groups)
    found = _with(plan, choices, chosen)
    found.spent = _summary(found, plan, choices, groups, chosen, costs)
    note = f"{plural(len(groups), 'group')} of {plan.model.kind.words.parts} for {_told(found, found.sink.final_bytes)}"
    found.notes.append(note)
    yield Note(note)
    return found


def _groups(
    plan: Plan, choices: Mapping[str, list[Item]], costs: Mapping[str, Mapping[str, float] | None]
) -> dict[str, list[Option]]:
    """The options of each group of parts, by the names of its parts."""
    groups = {}
    for names in plan.model.together(plan):
        labels = [item.format.name for item in choices[names[0]]]
        options = []
        for number, label in enumerate(labels):
            items = [choices[name][number] for name in names]
            loss = sum((costs[name] or {}).get(label, 0.0) for name in names)
            options.append(Option(label, sum(map(plan.stored, items)) / 8, loss))
        groups[" ".join(names)] = options
    return groups


def _chosen(
    plan: Plan, budget: Budget, choices: Mapping[str, list[Item]], groups: Mapping[str, list[Option]]
) -> Allocation:
    """The options to take."""
    limit = bytes_of(plan, budget)
    if limit is None:
        return _least_bytes(budget, groups, plan.model.spread)
    room = float(limit - _beside(plan, choices))
    while True:
        found = allocate(groups, room)
        over = _with(plan, choices, found).sink.final_bytes - limit
        if over <= 0:
            return found
        room -= over  # what lies between tensors depends on their sizes


def _least_bytes(budget: Budget, groups: Mapping[str, list[Option]], spread: float) -> Allocation:
    """The smallest options that lose at most the budget, as surely as is predicted: sizes and losses change places."""
    assert budget.kl is not None
    turned = {name: [Option(o.label, o.loss, o.size) for o in options] for name, options in groups.items()}
    try:
        found = allocate(turned, budget.kl / spread)
    except ValueError as error:
        least = spread * sum(min(o.loss for o in options) for options in groups.values())
        raise RecipeError(
            f"the finest formats may lose {least:.3g} nats per token already", where="--max-kl",
            fix=f"Give at least {1.01 * least:.2g}, or finer formats (budget.formats)", key="budget",
        ) from error  # fmt: skip
    chosen = {name: Option(o.label, o.loss, o.size) for name, o in found.chosen.items()}
    return Allocation(chosen, sum(o.loss for o in chosen.values()))


def _beside(plan: Plan, choices: Mapping[str, list[Item]]) -> int:
    """Bytes of the output that no choice changes."""
    first = {name: forms[0] for name, forms in choices.items()}
    return replace(plan, items=first).sink.final_bytes - sum(map(plan.stored, first.values())) // 8


def _with(plan: Plan, choices: Mapping[str, list[Item]], chosen: Allocation) -> Plan:
    """The plan with the chosen formats."""
    items = dict(plan.items)
    for names, option in chosen.chosen.items():
        for name in names.split(" "):
            items[name] = next(item for item in choices[name] if item.format.name == option.label)
    return replace(plan, items=items, spent={}, notes=list(plan.notes))


def _summary(
    found: Plan,
    plan: Plan,
    choices: Mapping[str, list[Item]],
    groups: Mapping[str, list[Option]],
    chosen: Allocation,
    costs: Mapping[str, Any],
) -> dict[str, Any]:
    """How the budget was spent, for the certificate."""
    beside, spread = _beside(plan, choices), plan.model.spread
    steps = list(frontier(groups))
    kept = sorted({round(i * (len(steps) - 1) / (POINTS - 1)) for i in range(POINTS)})
    return {
        "bytes": found.sink.final_bytes,
        "predicted": {"kl": chosen.loss, "low": chosen.loss / spread, "high": chosen.loss * spread},
        "bound": chosen.bound,
        "frontier": [[beside + round(steps[i].size), steps[i].loss] for i in kept],
        "costs": dict(costs),
    }
