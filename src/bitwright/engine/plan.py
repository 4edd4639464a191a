"""The plan of a run: every part's format and method, the final size, memory and time, before anything is done."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bitwright import machine
from bitwright.engine import budget
from bitwright.engine.options import require_tables
from bitwright.engine.partial import Job, require_ours
from bitwright.errors import BitwrightError, RecipeError, ResourceError, nearest
from bitwright.files import hub
from bitwright.files.containers import registry as containers
from bitwright.files.plain import NAME, require_new
from bitwright.methods import registry as methods
from bitwright.models import kind_of, require_device
from bitwright.models.effort import EFFORTS
from bitwright.models.kind import Kind
from bitwright.models.model import Item, Plan, levels_of
from bitwright.recipe import Layer, Recipe, matches
from bitwright.words import grown, megabytes, plural, summed

ASKED = "kept float on request"
STUDY = (
    "a study copy: it shows what the format costs in quality; its weights are stored as floats, nothing gets smaller"
)


def make(
    source: Path,
    out: Path,
    recipe: Recipe,
    *,
    max_ram: int | None = None,
    device: str = "cpu",
    shared: Path | None = None,
    check_out: bool = True,
    needs_data: bool = True,
) -> Plan:
    """Decide everything about quantizing the model at `source` into `out`; nothing is written.

    In the folder `shared` several runs on one model keep what they learn of it. `needs_data` False leaves samples
    unread that were not named yet, `check_out` False the output unchecked. Raises ModelError, FileError, RecipeError,
    TensorError, DataError or ResourceError for what could be known to fail.
    """
    kind = kind_of(source)
    require_device(kind, device)
    recipe = complete(kind, recipe)
    container = containers.get(recipe.output or kind.output(recipe, out))
    if recipe.budget is not None:
        recipe = recipe.model_copy(update={"output": container.name})  # which decides what formats there are
    if container.holds != kind.holds:
        fitting = ", ".join(c.name for c in containers.all() if c.holds == kind.holds)
        raise RecipeError(
            f"{container.name} does not hold {kind.title}", where="output",
            fix=f"Choose one of: {fitting}", key="output",
        )  # fmt: skip
    model = kind.open(source, recipe, device)
    container = model.container(container, recipe)
    plan = Plan(model, out, recipe, container, max_ram, shared, notes=list(model.notes))
    parts = model.parts(recipe)
    _require_patterns(plan)
    settings = {part.name: model.layer(part, recipe) for part in parts}
    plan.floats = {name: ASKED for name, layer in settings.items() if layer.format == "float"}
    chosen = {name: layer for name, layer in settings.items() if name not in plan.floats}
    plan.floats |= model.leave(chosen, recipe, container)
    said: list[tuple[str, str]] = []
    for part in parts:
        if part.name in plan.floats:
            continue
        try:
            found = model.item(part, chosen[part.name], plan)
            if not isinstance(found, str):
                _require_method(kind, found, chosen[part.name])
        except BitwrightError as error:
            error.key = _said_by(recipe, model.names(part), error.key)
            raise
        if isinstance(found, str):
            plan.floats[part.name] = found
            said.append((part.name, found))
            continue
        plan.items[part.name] = found
        if found.note:
            said.append((part.name, found.note))
    plan.notes += summed(said, kind.words.parts)
    if container.study:
        plan.notes.append(STUDY)
    _require_some(plan)
    model.require(plan)
    if recipe.budget is not None:
        budget.require(plan)
    if needs_data:
        model.open_data(plan)
    plan.notes += growth(plan)
    if check_out:
        require_out(plan)
        machine.require_memory(plan.estimate.needed, max_ram)
    return plan


def beside(kind: Kind, source: Path, recipe: Recipe) -> Path:
    """Where an output might go: what is shown where no place is named. Raises RecipeError for an unknown container."""
    return kind.beside(source, containers.get(recipe.output or kind.output(recipe)).ending)


def growth(plan: Plan) -> list[str]:
    """A note where the output is larger than the input."""
    before, after = plan.model.source_bytes, budget.final_bytes(plan)
    if not grown(before, after):
        return []
    return [f"the output is larger than the input: {megabytes(before)} -> {megabytes(after)} ({after / before:.0%})"]


def complete(kind: Kind, recipe: Recipe) -> Recipe:
    """`recipe` with this kind's own defaults where it says nothing; RecipeError for a table of another kind."""
    raw = recipe.model_dump(mode="python", exclude_unset=True)
    require_tables(kind, raw, "recipe")
    if "calibration" in kind.tables:
        raw["calibration"] = {"windows": EFFORTS[recipe.effort].windows} | raw.get("calibration", {})
    if recipe.budget is not None:
        raw |= {table: {**given, **raw.get(table, {})} for table, given in kind.spending.items()}
    if kind.layer:
        raw["layer"] = Layer.model_validate(dict(kind.layer)).overlaid(raw.get("layer", {})).model_dump()
    return Recipe.model_validate(raw)


def _said_by(recipe: Recipe, names: tuple[str, ...], key: str | None) -> str | None:
    """The key at fault, `layer.format`, as that of the rule which said it for the part with these names, if one did."""
    _, _, field = (key or "").partition("layer.")
    said = [
        i for i, rule in enumerate(recipe.rules) if field in rule.given and any(matches(rule.match, n) for n in names)
    ]
    return f"rules.{said[-1]}.{field}" if said else key


def _require_method(kind: Kind, item: Item, layer: Layer) -> None:
    """Raise RecipeError if a method does not support this kind of model or this format."""
    method, name = item.method, layer.method
    able = [m for m in methods.all() if kind.serves(m)]
    wrong = None if method in able else f"cannot be used on {kind.title}"
    if wrong is None and (unfit := method.fits(item.format)) is not None:
        wrong = f"does not work with {item.format.name}: {unfit}"
    if wrong is not None:
        fitting = ", ".join(m.name for m in able if m.fits(item.format) is None)
        raise RecipeError(
            f"method {name} {wrong}", where=item.name,
            fix=f"Choose --method {fitting}" if fitting else "Choose another --format", key="layer.method",
        )  # fmt: skip


def _require_patterns(plan: Plan) -> None:
    known = list(plan.model.known())
    for i, rule in enumerate(plan.recipe.rules):
        if not any(matches(rule.match, name) for name in known):
            raise RecipeError(
                f"pattern {rule.match!r} matches no {plan.model.kind.words.part}", where="recipe: rules",
                fix=nearest(rule.match, known), key=f"rules.{i}.match",
            )  # fmt: skip


def _require_some(plan: Plan) -> None:
    if plan.items:
        return
    first = next(iter(plan.floats.items()), None)
    why = f" ({first[0]}: {first[1]})" if first else ""
    raise RecipeError(
        f"nothing would be quantized{why}", where=str(plan.source),
        fix=f'Give a format other than "float", and a model with {plan.model.kind.words.parts} of constant weights',
        key="layer.format" if set(plan.floats.values()) <= {ASKED} else "output",
    )  # fmt: skip


def require_out(plan: Plan) -> None:
    """Raise where the output cannot be written: wrongly named, there already, in a folder that is closed or full."""
    plan.kind.require_name(plan.out, plan.container.ending)
    require_place(plan, budget.final_bytes(plan))


def require_place(job: Job, needed: int) -> None:
    """Raise where an output of `needed` bytes cannot be written: there already, in a folder that is closed or full."""
    out = job.out
    require_new(out)
    for name in (job.partial.name, job.kind.certificate(out).name):
        if len(os.fsencode(name)) > NAME:
            raise RecipeError("the name is too long for what lies beside it", where=str(out), fix="Choose a shorter -o")
    base = _standing(out)
    require_ours(job)
    if not base.is_dir() or not os.access(base, os.W_OK | os.X_OK):
        raise ResourceError("the output folder cannot be written", where=str(base), fix="Choose another -o")
    free = shutil.disk_usage(base).free
    held = sum(p.stat().st_blocks * 512 for p in job.partial.rglob("*")) if job.partial.is_dir() else 0
    if needed > free + held:
        raise ResourceError(
            f"the output needs {needed / 1e6:,.0f} MB, but only {free / 1e6:,.0f} MB are free",
            where=str(base),
            fix="Free disk space or choose another -o",
        )


def _standing(out: Path) -> Path:
    """The nearest folder above `out` that exists; RecipeError where one above it is a link to nothing."""
    base = out.parent
    while not base.exists():
        if base.is_symlink():
            raise RecipeError("a link to nothing", where=str(base), fix="Make its folder, or choose another -o")
        base = base.parent
    return base


def summary(plan: Plan) -> dict[str, Any]:
    """The plan as plain data for `--json`; every part by the name it has in the certificate."""
    model, estimate = plan.model, plan.estimate
    choices = model.choices(plan) if plan.unspent else {}
    return {
        "kind": model.kind.name,
        "source": str(plan.source),
        "out": str(plan.out),
        "container": plan.container.name,
        "study": plan.container.study,
        "quantized": [_row(plan, item, choices.get(item.name, [])) for item in plan.items.values()],
        "kept_float": plan.floats,
        "effort": plan.effort.summary(),
        **model.facts(plan),
        "source_bytes": model.source_bytes,
        "final_bytes": budget.final_bytes(plan),
        "stored_bits_per_weight": None if plan.unspent else plan.stored_bits,
        "possible_bytes": [end.sink.final_bytes for end in plan.ends] or None,
        "parameters": model.parameters,
        "bits_per_parameter": 8 * budget.final_bytes(plan) / max(model.parameters, 1),
        "peak_memory_bytes": plan.memory,
        "seconds": estimate.seconds,
        "runtimes": model.runtimes(plan),
        "notes": plan.notes,
    }


def _row(plan: Plan, item: Item, choices: Sequence[Item]) -> dict[str, Any]:
    """What becomes of a matrix; one that a budget gives its format has none yet, but `formats` to choose from."""
    found = {"name": item.name, "rows": item.rows, "columns": item.columns, "method": item.method.name}
    if len(choices) > 1:
        return {**found, "format": None, "formats": [form.words for form in choices]}
    return {
        **found,
        "format": item.words,
        "note": item.note,
        "recoverable": item.name in plan.recoverable,
        "stored_bits": plan.stored(item),
        "levels": item.format.code.levels,
        "input_levels": plan.model.input_levels(plan, item),
    }


def lines(plan: Plan) -> list[str]:
    """The plan in words, on one screen."""
    words, estimate = plan.model.kind.words, plan.estimate
    kinds = Counter(
        (item.words, item.method.name, item.format.code.levels, levels_of(item.activations))
        for item in plan.items.values()
    )
    origin = hub.origin(plan.source)
    found = [f"plan: {f'{hub.PREFIX}{origin}' if origin else plan.source} -> {plan.out}"]
    if plan.unspent:
        kinds.clear()
        found += [f"  {line}" for line in budget.lines(plan)]
    for (form, method, there, inputs), count in kinds.items():
        told = f"{there} levels" + (f", {inputs} of inputs" if inputs is not None else "")
        found.append(f"  {plural(count, words.part, words.parts)} as {form} by {method}: {told}")
    begun = Counter(item.lattice for item in plan.items.values() if item.name in plan.recoverable)
    for form, count in begun.items():
        told = f"{plural(count, words.part, words.parts)} {'begins' if count == 1 else 'begin'} on the {form}"
        found.append(f"  {told}: without loss where all rows lie on it, whatever the method")
    found += [f"  {line}" for line in plan.model.lines(plan)]
    before, after = plan.model.source_bytes, budget.final_bytes(plan)
    stored = f"{8 * after / max(plan.model.parameters, 1):.2f} bits per parameter"
    if not plan.unspent:
        stored += f", {plan.stored_bits:.3f} per quantized weight"
    if plan.container.study:
        stored = f"floats, not {plan.stored_bits:.3f} bits per weight"
    found.append(f"  {megabytes(before)} -> {megabytes(after)} ({after / max(before, 1):.0%}), {stored}")
    found.append(f"  memory: about {plan.memory / 1e6:,.0f} MB; time: about {estimate.seconds:,.0f} s on this machine")
    found.append(f"  loads in: {'; '.join(plan.model.runtimes(plan))}")
    return found + [f"  note: {note}" for note in plan.notes]
