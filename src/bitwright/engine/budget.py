"""Formats by what they cost: the plan whose output fits the recipe's budget and loses the least."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bitwright.core.allocation import Allocation, Option, allocate, frontier
from bitwright.engine.journal import Journal
from bitwright.errors import RecipeError
from bitwright.events import Event, Note
from bitwright.models.model import Cost, Fixed, Item, Plan
from bitwright.recipe import Budget
from bitwright.words import megabytes, plural

KEPT = "cost:"
"""Begins the journal's names of what parts cost."""
FIXED = "fixed"
"""The journal's name of what all choices lose alike."""
POINTS = 24
"""Points of the frontier that the certificate holds."""


def require(plan: Plan) -> None:
    """Find out which outputs are possible; RecipeError where the budget is smaller than the smallest."""
    plan.ends = _ends(plan)
    least, budget = plan.ends[0].sink.final_bytes, plan.recipe.budget
    assert budget is not None
    limit = bytes_of(plan, budget)
    if limit is not None and limit < least:
        raise _too_small(plan, budget, limit, least)


def _too_small(plan: Plan, budget: Budget, limit: int, least: int) -> RecipeError:
    most = plan.ends[1].sink.final_bytes
    return RecipeError(
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
    if budget is None or not plan.unspent:
        return plan.sink.final_bytes
    limit, largest = bytes_of(plan, budget), plan.ends[1].sink.final_bytes
    return largest if limit is None else min(limit, largest)


def lines(plan: Plan) -> list[str]:
    """What the plan says of a budget that is not spent yet."""
    choices = plan.model.choices(plan)
    names = dict.fromkeys(item.format.name for forms in choices.values() for item in forms)
    least, most = (end.sink.final_bytes for end in plan.ends)
    told = plural(len(choices), plan.model.kind.words.part, plan.model.kind.words.parts)
    return [
        f"{told} in formats chosen by what they cost on {plan.model.kind.words.data}: {', '.join(names)}",
        f"outputs of {_told(plan, least)} to {_told(plan, most)} are possible",
    ]


def _ends(plan: Plan) -> tuple[Plan, ...]:
    """The plans with the smallest and the largest output. RecipeError where rules contradict one another."""
    groups = _groups(plan, plan.model.choices(plan))
    found = []
    for pick in (min, max):
        picked = [pick(forms.values(), key=lambda items: _stored(plan, items)) for forms in groups.values()]
        items = {item.name: item for each in picked for item in each}
        found.append(replace(plan, items={name: items[name] for name in plan.items}))
    return tuple(sorted(found, key=lambda end: end.sink.final_bytes))


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
            costs[event.name] = event.loss
            journal.keep(f"{KEPT}{event.name}", event.loss)
        elif isinstance(event, Fixed):
            journal.keep(FIXED, event.loss)
        else:
            yield event
    groups = _groups(plan, choices)
    options = {name: _options(plan, forms, costs) for name, forms in groups.items()}
    fixed = float(journal.kept.get(FIXED, 0.0))
    chosen = _chosen(plan, budget, groups, options, fixed)
    found = _with(plan, groups, chosen)
    found.spent = _summary(found, plan, groups, options, chosen, costs, fixed)
    note = f"{plural(len(groups), 'group')} of {plan.model.kind.words.parts} for {_told(found, found.sink.final_bytes)}"
    yield Note(note)
    return found


Forms = Mapping[str, list[Item]]
"""The forms that a group of parts may have: all parts of the group in that form, by its format's name."""


def _groups(plan: Plan, choices: Mapping[str, list[Item]]) -> dict[str, Forms]:
    """The groups that must have one format, by their first part. RecipeError where their parts have none in common."""
    groups: dict[str, Forms] = {}
    for names in plan.model.together(plan):
        forms = [{item.format.name: item for item in choices[name]} for name in names]
        common = [label for label in forms[0] if all(label in others for others in forms)]
        if not common:
            raise RecipeError(
                f"rules leave no format that {names[0]} and what goes with it can share", where=names[0],
                fix=f"Give the same format to all of: {', '.join(names)}", key="rules",
            )  # fmt: skip
        groups[names[0]] = {label: [others[label] for others in forms] for label in common}
    return groups


def _options(plan: Plan, forms: Forms, costs: Mapping[str, Mapping[str, float] | None]) -> list[Option]:
    """What a group takes and loses in each of its forms."""
    return [
        Option(
            label,
            _stored(plan, items) / 8,
            sum((costs[item.name] or {}).get(label, 0.0) for item in items),
        )
        for label, items in forms.items()
    ]


def _stored(plan: Plan, items: Sequence[Item]) -> int:
    """Bits on disk of some parts; those that share a tensor have it once."""
    return sum(map(plan.stored, {plan.model.tensor(item.part): item for item in items}.values()))


def _chosen(
    plan: Plan, budget: Budget, groups: Mapping[str, Forms], options: Mapping[str, list[Option]], fixed: float
) -> Allocation:
    """The options to take, where `fixed` is lost whichever they are."""
    limit = bytes_of(plan, budget)
    if limit is None:
        return _least_bytes(plan, budget, options, fixed)
    least = {name: min(each, key=lambda option: (option.loss, option.size)) for name, each in options.items()}
    finest = Allocation(least, sum(option.loss for option in least.values()))
    if _with(plan, groups, finest).sink.final_bytes <= limit:
        return finest
    room = float(limit - _beside(plan, groups))
    while True:
        try:
            found = allocate(options, room)
        except ValueError as error:
            small = _with(plan, groups, allocate(options, sum(min(o.size for o in each) for each in options.values())))
            raise _too_small(plan, budget, limit, small.sink.final_bytes) from error
        over = _with(plan, groups, found).sink.final_bytes - limit
        if over <= 0:
            return found
        room -= over  # what lies between tensors depends on their sizes


def _least_bytes(plan: Plan, budget: Budget, options: Mapping[str, list[Option]], fixed: float) -> Allocation:
    """The smallest options that lose at most the budget, as surely as is predicted: sizes and losses change places."""
    assert budget.kl is not None
    spread = plan.model.spread
    turned = {name: [Option(o.label, o.loss, o.size) for o in each] for name, each in options.items()}
    try:
        found = allocate(turned, budget.kl / spread - fixed)
    except ValueError as error:
        least = spread * (fixed + sum(min(o.loss for o in each) for each in options.values()))
        sample = plan.model.kind.words.sample
        raise RecipeError(
            f"the finest formats may lose {least:.3g} nats per {sample} already", where="--max-kl",
            fix=f"Give at least {1.01 * least:.2g}, or finer formats (budget.formats)", key="budget",
        ) from error  # fmt: skip
    chosen = {name: Option(o.label, o.loss, o.size) for name, o in found.chosen.items()}
    return Allocation(chosen, sum(o.loss for o in chosen.values()))


def _beside(plan: Plan, groups: Mapping[str, Forms]) -> int:
    """Bytes of the output that no choice changes."""
    first = {item.name: item for forms in groups.values() for item in next(iter(forms.values()))}
    return replace(plan, items=first).sink.final_bytes - _stored(plan, [*first.values()]) // 8


def _with(plan: Plan, groups: Mapping[str, Forms], chosen: Allocation) -> Plan:
    """The plan with the chosen formats."""
    found = {item.name: item for name, option in chosen.chosen.items() for item in groups[name][option.label]}
    return replace(plan, items={name: found[name] for name in plan.items}, spent={}, notes=list(plan.notes))


def _summary(
    found: Plan,
    plan: Plan,
    groups: Mapping[str, Forms],
    options: Mapping[str, list[Option]],
    chosen: Allocation,
    costs: Mapping[str, Any],
    fixed: float,
) -> dict[str, Any]:
    """How the budget was spent, for the certificate; `fixed` is part of every loss."""
    spread, loss, steps = plan.model.spread, fixed + chosen.loss, list(frontier(options))
    kept = sorted({round(i * (len(steps) - 1) / (POINTS - 1)) for i in range(POINTS)})
    return {
        "bytes": found.sink.final_bytes,
        **({"outputs": list(plan.model.judged)} if plan.model.judged else {}),
        "predicted": {plan.model.measure: loss, "low": loss / spread, "high": loss * spread},
        "fixed": fixed,
        "bound": fixed + chosen.bound,
        "frontier": [[_with(plan, groups, steps[i]).sink.final_bytes, fixed + steps[i].loss] for i in kept],
        "costs": dict(costs),
    }
