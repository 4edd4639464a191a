"""The plan of a sweep: every recipe is planned, and what an earlier sweep finished is found, before anything runs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitwright.engine import budget
from bitwright.engine import plan as planning
from bitwright.engine.report.certificate import read
from bitwright.errors import BitwrightError, RecipeError, ResourceError
from bitwright.files.containers import registry as containers
from bitwright.files.plain import hashes
from bitwright.models import kind_of
from bitwright.models.kind import Kind
from bitwright.models.model import Plan
from bitwright.recipe import Recipe
from bitwright.words import megabytes, plural


@dataclass(frozen=True)
class Member:
    """One recipe of a sweep and its output: `size` bytes, made with `memory` bytes in `seconds`; `done` is there."""

    name: str
    recipe: Recipe
    out: Path
    size: int
    memory: int
    seconds: float
    done: bool


@dataclass(frozen=True)
class Sweep:
    """A model, the folder `out`, and what is made there. Each has `threads`, `max_ram` bytes and `device`."""

    source: Path
    out: Path
    members: tuple[Member, ...]
    threads: int = 1
    max_ram: int | None = None
    device: str = "cpu"

    @property
    def shared(self) -> Path:
        """Where members keep what they learn of the model, for each other, until all are done."""
        return self.out / ".shared"


def make(
    source: Path,
    out: Path,
    recipes: Mapping[str, Recipe],
    *,
    threads: int = 1,
    max_ram: int | None = None,
    device: str = "cpu",
) -> Sweep:
    """Plan all `recipes`, by name, on the model at `source`; nothing is written.

    Raises what `engine.plan.make` raises, about the recipe's name, and RecipeError where something else lies in the
    place of an output.
    """
    kind, known = kind_of(source), _Known()
    members = []
    for name, recipe in recipes.items():
        try:
            members.append(_planned(kind, source, out, name, recipe, max_ram, device, known))
        except BitwrightError as error:
            error.where = f"{name}: {error.where}" if error.where else name
            raise
    _require_room(out, sum(member.size for member in members if not member.done))
    return Sweep(source, out, tuple(members), threads, max_ram, device)


class _Known:
    """The hashes of the source's files, taken when an output is first found."""

    sums: list[str] | None = None

    def of(self, plan: Plan) -> list[str]:
        if self.sums is None:
            self.sums = sorted(hashes(plan.model.files).values())
        return self.sums


def _planned(
    kind: Kind, source: Path, out: Path, name: str, recipe: Recipe, max_ram: int | None, device: str, known: _Known
) -> Member:
    completed = planning.complete(kind, recipe)
    container = containers.get(completed.output or kind.output(completed))
    place = out / f"{name}{container.ending or kind.ending}"
    there = kind.standing(place)
    done = there.exists()
    plan = planning.make(source, place, recipe, max_ram=max_ram, device=device, check_out=not done)
    if done:
        certificate = read(kind.certificate(there))
        if certificate["recipe"]["sha256"] != plan.recipe.hash:
            raise RecipeError("was made by another recipe", where=str(there), fix="Choose another -o, or remove it")
        if sorted(certificate["source"]["sha256"].values()) != known.of(plan):
            raise RecipeError("was made from another model", where=str(there), fix="Choose another -o, or remove it")
    return Member(name, recipe, place, budget.final_bytes(plan), plan.memory, plan.estimate.seconds, done)


def _require_room(out: Path, needed: int) -> None:
    """Raise ResourceError where the disk does not hold all outputs that are still to be made."""
    base = next(parent for parent in [out, *out.absolute().parents] if parent.exists())
    if needed > (free := shutil.disk_usage(base).free):
        raise ResourceError(
            f"the outputs need {needed / 1e6:,.0f} MB, but only {free / 1e6:,.0f} MB are free", where=str(base),
            fix="Free disk space or choose another -o",
        )  # fmt: skip


def summary(sweep: Sweep) -> dict[str, Any]:
    """The plan as plain data for `--json`."""
    return {
        "source": str(sweep.source),
        "out": str(sweep.out),
        "members": [
            {
                "name": member.name, "out": str(member.out), "final_bytes": member.size,
                "peak_memory_bytes": member.memory, "seconds": member.seconds, "done": member.done,
            }
            for member in sweep.members
        ],
    }  # fmt: skip


def lines(sweep: Sweep) -> list[str]:
    """The plan in words."""
    left = [member for member in sweep.members if not member.done]
    head = f"sweep: {sweep.source} -> {sweep.out}, {plural(len(sweep.members), 'recipe', 'recipes')}"
    there = len(sweep.members) - len(left)
    found = [head + (f" ({there} done already)" if there else "")]
    width = max(len(member.name) for member in sweep.members)
    for member in sweep.members:
        told = "done" if member.done else f"about {member.seconds:,.0f} s, {member.memory / 1e6:,.0f} MB of memory"
        found.append(f"  {member.name:<{width}}  {megabytes(member.size):>9}  {told}")
    return found
