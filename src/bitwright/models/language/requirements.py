"""What can be known to fail, or is worth a note, once it is decided what all matrices of a language model become."""

from __future__ import annotations

from importlib.metadata import version

from bitwright.errors import ModelError, RecipeError, ResourceError
from bitwright.files.containers.gguf import families
from bitwright.models.language import memory
from bitwright.models.language.arch import Architecture
from bitwright.models.language.forms import FLOAT, Forms
from bitwright.models.language.modules import modules_of, unties
from bitwright.models.model import Plan
from bitwright.words import megabytes


def require(plan: Plan, arch: Architecture, forms: Forms) -> None:
    """Raise ModelError, RecipeError or ResourceError for a plan that cannot be; note on it what would surprise."""
    if plan.container.unpacking and arch.merged:
        raise ModelError(
            f"transformers {version('transformers')} drops tensors that it joins while loading packed weights, "
            f"such as {arch.merged[0]}",
            where=str(plan.source),
            fix="Use --to float to study it, or try another release of transformers",
            foreign=True,
        )
    plan.container.require_together(modules_of(plan, arch), arch.unpacks)
    if forms.weighing is not None:
        _require_weighed(plan)
        plan.notes.append(forms.weighing.note)
    plan.notes += plan.effort.notes
    if plan.recipe.budget is not None:
        _require_measured(plan)
    if plan.container.ending:
        plan.notes += families.notes(forms.places.config)
    if plan.container.cache is not None and memory.looks(plan) and not plan.effort.corrects:
        plan.notes.append("scales of keys and values are fitted to those of the float network, not of its copy")
    if plan.container.cache is not None and any(i.method.scope == "model" for i in plan.items.values()):
        plan.notes.append("scales of keys and values are fitted to those at which training begins")
    if unties(plan, arch):
        added = sum(plan.stored(i) for i in plan.items.values() if arch.apart(i.part)) // 8
        plan.notes.append(
            f"a head of {megabytes(added)} is added to the float embedding: --embedding int8, and no untie, stores "
            "one table for both"
        )
    _require_rounded(plan, arch)


def _require_rounded(plan: Plan, arch: Architecture) -> None:
    """Raise RecipeError if too many weights of the blocks stay float although no rule says so."""
    asked = {m.name for m in arch.quantizable() if plan.recipe.layer_for(m.name)[0].format == FLOAT}
    total = left = 0
    worst: tuple[int, str] = (0, "")
    for block in range(arch.count):
        for entry in arch.tensors_of(block):
            if len(entry.shape) < 2 or entry.name in asked or arch.is_buffer(entry.name):
                continue
            total += entry.count
            if entry.name not in plan.items:
                left += entry.count
                worst = max(worst, (entry.count, entry.name))
    percent = 100 * left / max(total, 1)
    if percent > plan.recipe.max_float_percent:
        raise RecipeError(
            f"{percent:.1f} % of the decoder blocks' weights would stay float "
            f"(limit {plan.recipe.max_float_percent:g} %), the largest {worst[1]}",
            where=str(plan.source),
            fix="Leave them float on purpose with a rule, or raise max_float_percent in the recipe",
            key="max_float_percent",
        )


def _require_weighed(plan: Plan) -> None:
    """Raise RecipeError where an imatrix would be ignored, or calibration text asks for the same."""
    if "source" in plan.recipe.calibration.model_fields_set:
        what = "contradicts --calib: both say how columns are weighed"
        raise RecipeError(what, where="--imatrix", fix="Give one of them", key="imatrix")
    kept, spent = plan.container.cache is not None, plan.recipe.budget is not None
    if kept or spent:
        other = "--kv-cache, whose scales take" if kept else "a budget, for which costs are measured on"
        what = f"contradicts {other} calibration text"
        raise RecipeError(what, where="--imatrix", fix="Give --calib TEXT instead", key="imatrix")
    inside = [item for item in plan.items.values() if item.part.block is not None]
    if not any(item.method.diagonal for item in inside):
        what = f"is of no use to {', '.join(dict.fromkeys(item.method.name for item in inside))}"
        raise RecipeError(what, where="--imatrix", fix="Leave it out, or choose another --method", key="imatrix")


def _require_measured(plan: Plan) -> None:
    """Raise where it cannot be found out what formats cost."""
    if not memory.looks(plan):
        raise RecipeError(
            "a budget is spent by what formats cost on text, and nothing looks at any", where="budget",
            fix="Give --calib TEXT, and a method that looks at it (descent)", key="budget",
        )  # fmt: skip
    if not plan.effort.weighing:
        why = plan.effort.notes[-1] if plan.effort.notes else "no method weighs outputs"
        raise ResourceError(f"a budget needs to know how much outputs count: {why}", where="budget",
                            fix="Give more memory, or --type instead of a budget")  # fmt: skip
